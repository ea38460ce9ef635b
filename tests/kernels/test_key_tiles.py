"""Long caches on XLA, read tile by tile: tiny tiles here, against the oracle and the whole cache at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import head_dispersion, key_tiles, prefill_attention

from . import cases
from .test_attention import PREFILL_CASES, Case, check, check_learned_sink, title
from .test_head_dispersion import expected

CASES = [PREFILL_CASES[i] for i in (1, 3, 5, 7)]


@pytest.fixture(autouse=True)
def tiles_of_eight(monkeypatch):
    monkeypatch.setattr(key_tiles, "LONG", 8)
    monkeypatch.setattr(key_tiles, "TILE", 8)


def jitted(function, case, implementation="xla", **options):
    options |= {"prompt_length": case.prompts} if function is prefill_attention else {}
    return jax.jit(functools.partial(function, implementation=implementation, **case.options, **options))


@pytest.mark.parametrize("case", CASES, ids=title)
def test_agrees_with_oracle(case, rng):
    q, k, v = case.arrays(rng, "float32")
    start = jnp.asarray(case.start, jnp.int32)
    check(case, q, k, v, *jitted(prefill_attention, case)(q, k, v, start), "float32")
    got = jitted(head_dispersion, case)(q, k, start)
    cases.assert_near(got, expected(case, q, k), cases.DISPERSION, "head_jsd")


def test_output_is_the_same_without_moments(rng):
    case = CASES[1]
    arrays = (*case.arrays(rng, "float32"), jnp.asarray(case.start, jnp.int32))
    output, moments = jitted(prefill_attention, case, moments=False)(*arrays)
    want, _ = jitted(prefill_attention, case, "reference")(*arrays)
    cases.assert_near(output, want, 1e-5, "output")
    assert moments is None


def test_a_learned_sink_takes_its_share_of_the_output(rng):
    cases.compiled.cache_clear()
    check_learned_sink(Case((-1, 16), 4, 20, 2, 2, window=9), rng, "xla", decodes=False, moments=False)
    cases.compiled.cache_clear()


def test_tiles_that_no_query_sees_are_not_read(rng):
    """Keys 16 … 31 are visible; NaN in the tiles before and after would show."""
    case = Case((24,), 4, 48, 2, 2, window=8)
    q, k, v = case.arrays(rng, "float32")
    start = jnp.asarray(case.start, jnp.int32)
    invisible = (np.arange(48) < 16) | (np.arange(48) >= 32)
    want = jitted(prefill_attention, case, "reference")(q, k, v, start)
    dispersion = jitted(head_dispersion, case, "reference")(q, k, start)
    k, v = jnp.where(invisible, jnp.nan, k), jnp.where(invisible[:, None], jnp.nan, v)
    got = jitted(prefill_attention, case)(q, k, v, start)
    jax.tree.map(lambda x, y: cases.assert_near(x, y, 1e-5, "visible"), got, want)
    cases.assert_near(jitted(head_dispersion, case)(q, k, start), dispersion, cases.DISPERSION, "head_jsd")


def test_gradients_agree_with_reference(rng):
    case = Case((3,), 4, 20, 2, 2, window=6)
    q, k, v = case.arrays(rng, "float32")
    start = jnp.asarray(case.start, jnp.int32)

    @functools.partial(jax.jit, static_argnums=2)
    @functools.partial(jax.grad, argnums=(0, 1))
    def slopes(q, k, implementation):
        out, moments = prefill_attention(q, k, v, start, implementation=implementation, **case.options)
        dispersion = head_dispersion(q, k, start, implementation=implementation, **case.options)
        return jnp.sum(jnp.sin(out)) + jnp.sum(moments.entropy) + jnp.sum(dispersion)

    got, want = (slopes(q, k, name) for name in ("xla", "reference"))
    jax.tree.map(lambda x, y: cases.assert_near(x, y, 1e-4, "gradient"), got, want)
