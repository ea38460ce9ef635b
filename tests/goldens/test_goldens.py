"""Parity with stored results of transformers, on machines without torch."""

from importlib.util import find_spec

import numpy as np
import pytest

import jaxtrace
from tests.engine.reference import assert_metrics, metrics
from tests.goldens.golden import FOLDER, Golden
from tests.models.parity import assert_parity

pytestmark = pytest.mark.skipif(
    find_spec("torch") is not None, reason="tests/models compares with transformers directly"
)

NAMES = sorted(path.stem for path in FOLDER.glob("*.npz"))


@pytest.fixture(scope="module", params=NAMES)
def golden(request):
    return Golden.load(FOLDER / f"{request.param}.npz")


@pytest.fixture
def checkpoint(golden, tmp_path):
    golden.write_checkpoint(tmp_path)
    return str(tmp_path)


def test_logits_and_hidden_states_equal_transformers(golden, checkpoint):
    assert_parity(jaxtrace.load(checkpoint, stacked=True), golden.tokens, golden.run)


# The test above compares the same metrics; these are Gemma 4's block, whose layers differ, and one without rotation.
DAILY = ("gemma4", "gpt2")


@pytest.mark.parametrize(
    "golden",
    [pytest.param(name, marks=[pytest.mark.nightly] * (name not in DAILY)) for name in NAMES],
    indirect=True,
)
def test_metrics_of_a_text_equal_transformers(golden, checkpoint):
    model = jaxtrace.load(checkpoint)
    row = model.score([golden.tokens.tolist()]).rows[0]
    windows = [kind.window for kind in model.config.kinds]
    want = metrics(golden.run, np.append(golden.tokens[1:], -1), windows=windows)
    assert_metrics(row.metrics, want, golden.run.lens_logits)


def test_goldens_are_small():
    assert len(NAMES) == 12
    assert max((FOLDER / f"{name}.npz").stat().st_size for name in NAMES) < 200_000
