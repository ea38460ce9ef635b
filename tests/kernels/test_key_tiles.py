"""Long caches on XLA, gone through tile by tile: tiny tiles here, against the oracle and the whole cache at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import head_dispersion, key_tiles, prefill_attention

from . import cases
from .test_attention import PREFILL_CASES, Case, check, title
from .test_head_dispersion import expected

LONGER = [case for case in PREFILL_CASES if case.queries > 1 and case.keys >= 8]


@pytest.fixture(autouse=True)
def tiles_of_eight(monkeypatch):
    monkeypatch.setattr(key_tiles, "LONG", 8)
    monkeypatch.setattr(key_tiles, "TILE", 8)


def of(function, case, **options):
    return functools.partial(function, implementation="xla", **case.options, **options)


@pytest.mark.parametrize("case", LONGER, ids=title)
def test_against_oracle(case, rng):
    q, k, v = case.arrays(rng, "float32")
    start = jnp.asarray(case.start, jnp.int32)
    check(case, q, k, v, *jax.jit(of(prefill_attention, case))(q, k, v, start), "float32")
    got = jax.jit(of(head_dispersion, case))(q, k, start)
    cases.assert_near(got, expected(case, q, k), cases.DISPERSION, "head_jsd")
    plain, nothing = jax.jit(of(prefill_attention, case, moments=False))(q, k, v, start)
    cases.assert_near(
        plain, prefill_attention(q, k, v, start, implementation="reference", **case.options)[0], 1e-5, "out"
    )
    assert nothing is None


def test_tiles_that_no_query_sees_are_not_read(rng):
    """Keys 16 … 31 are seen; NaN in the tiles before and after would show."""
    case = Case((24,), 4, 48, 2, 2, window=8)
    q, k, v = case.arrays(rng, "float32")
    start = jnp.asarray(case.start, jnp.int32)
    unseen = (np.arange(48) < 16) | (np.arange(48) >= 32)
    want = prefill_attention(q, k, v, start, implementation="reference", **case.options)
    dispersion = head_dispersion(q, k, start, implementation="reference", **case.options)
    k, v = jnp.where(unseen, jnp.nan, k), jnp.where(unseen[:, None], jnp.nan, v)
    got = jax.jit(of(prefill_attention, case))(q, k, v, start)
    jax.tree.map(lambda x, y: cases.assert_near(x, y, 1e-5, "seen"), got, want)
    cases.assert_near(jax.jit(of(head_dispersion, case))(q, k, start), dispersion, cases.DISPERSION, "head_jsd")


def test_gradients(rng):
    case = Case((3,), 4, 20, 2, 2, window=6)
    q, k, v = case.arrays(rng, "float32")
    start = jnp.asarray(case.start, jnp.int32)

    def total(q, k, implementation):
        out, moments = prefill_attention(q, k, v, start, implementation=implementation, **case.options)
        dispersion = head_dispersion(q, k, start, implementation=implementation, **case.options)
        return jnp.sum(jnp.sin(out)) + jnp.sum(moments.entropy) + jnp.sum(dispersion)

    got, want = (jax.grad(total, argnums=(0, 1))(q, k, name) for name in ("xla", "reference"))
    jax.tree.map(lambda x, y: cases.assert_near(x, y, 1e-4, "gradient"), got, want)
