"""Choice of the implementation that serves a call, and the error if there is none."""

import jax
import jax.numpy as jnp
import pytest
from jaxtrace.kernels import Unsupported, softmax_moments
from jaxtrace.kernels.decode_attention.api import OPERATION as DECODE
from jaxtrace.kernels.dispatch import VARIABLE, Implementation, Operation
from jaxtrace.kernels.head_dispersion.api import OPERATION as DISPERSION
from jaxtrace.kernels.prefill_attention.api import OPERATION as PREFILL
from jaxtrace.kernels.softmax_moments.api import OPERATION as SOFTMAX
from jaxtrace.kernels.unembed_moments.api import OPERATION as UNEMBED

HERE = jax.default_backend()


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def operation():
    return Operation(
        "toy",
        elsewhere=Implementation(lambda x: "elsewhere", ("abacus", "slide rule")),
        here=Implementation(lambda x: "here", (HERE,)),
        everywhere=Implementation(lambda x: "everywhere"),
    )


def test_first_implementation_that_runs_here_is_chosen(operation):
    assert operation(0) == "here"


def test_argument_overrides_the_variable(operation, monkeypatch):
    monkeypatch.setenv(VARIABLE, "here")
    assert operation(0, implementation="everywhere") == "everywhere"


@pytest.mark.parametrize(
    ("value", "chosen"), [("everywhere", "everywhere"), ("elsewhere,everywhere,here", "everywhere"), ("", "here")]
)
def test_variable_lists_implementations_in_order(operation, monkeypatch, value, chosen):
    monkeypatch.setenv(VARIABLE, value)
    assert operation(0) == chosen


def test_unknown_name_lists_the_known_ones(operation):
    with pytest.raises(Unsupported, match=r"toy: .*abax: no such impl.*choose from elsewhere, here, everywhere"):
        operation(0, implementation="abax")


def test_implementation_of_another_platform_says_why(operation):
    with pytest.raises(Unsupported, match=f"elsewhere: runs on abacus, slide rule, and this is {HERE}"):
        operation(0, implementation="elsewhere")


def test_error_lists_every_reason(monkeypatch):
    only = Operation(
        "toy", first=Implementation(lambda: None, ("abacus",)), second=Implementation(lambda: None, ("slide rule",))
    )
    with pytest.raises(Unsupported) as error:
        only()
    assert "first: runs on abacus" in str(error.value)
    assert "second: runs on slide rule" in str(error.value)
    monkeypatch.setenv(VARIABLE, "third,first")
    with pytest.raises(Unsupported, match="third: no such implementation; first: runs on abacus"):
        only()


@pytest.mark.parametrize("operation", [SOFTMAX, UNEMBED, DECODE, PREFILL, DISPERSION], ids=lambda op: op.name)
def test_reference_runs_anywhere(operation):
    assert operation.implementations["reference"].refusal("abacus") is None


def test_public_function_passes_the_name_on(monkeypatch):
    with pytest.raises(Unsupported, match="softmax_moments"):
        softmax_moments(jnp.zeros(3), implementation="cuda")
    monkeypatch.setenv(VARIABLE, "cuda")
    with pytest.raises(Unsupported, match="softmax_moments"):
        softmax_moments(jnp.zeros(3))
