"""cross_attention and cross_dispersion: every implementation against the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import cross_attention, cross_dispersion
from jaxtrace.kernels.cross_attention.api import ATTENTION
from jaxtrace.kernels.prefill_attention import xla

from tests import oracle

from . import cases
from .test_attention import BOUNDS, OUTPUT

B, T, K, G, H, GROUPS, SIZE = 3, 7, 2, 2, 16, 4, 6
SCALE = 0.25


def arrays(rng, dtype="float32"):
    """Return q, k (slots last), v, and groups that exclude the first, the last, all or none."""
    q = rng.normal(0, 2, (B, T, K * G, H))
    k, v = rng.normal(0, 1, (2, B, K, GROUPS * SIZE, H))
    groups = rng.random((B, T, GROUPS)) < 0.6
    groups[0, 0], groups[0, 1], groups[1, 0], groups[1, 1] = False, True, [0, 1, 1, 1], [1, 0, 0, 0]
    return *(jnp.asarray(x, dtype) for x in (q, k.swapaxes(2, 3), v)), jnp.asarray(groups)


def expected(q, k, v, groups):
    """Return (output, {metric: [B, T, N]}, divergence) in float64."""
    q, k, v = (np.asarray(x.astype(jnp.float32), np.float64) for x in (q, k.swapaxes(2, 3), v))
    out, weights = np.zeros(q.shape), np.zeros((*q.shape[:3], k.shape[2]))
    metrics = {name: np.zeros(q.shape[:3]) for name, _ in BOUNDS.values()}
    for b, t, n in np.ndindex(q.shape[:3]):
        visible = np.flatnonzero(np.repeat(np.asarray(groups)[b, t], SIZE))
        if len(visible) == 0:
            continue
        a = oracle.softmax(SCALE * k[b, n // G, visible] @ q[b, t, n])
        out[b, t, n] = a @ v[b, n // G, visible]
        weights[b, t, n, visible] = a
        for name, value in oracle.attention_row(a, None, None).items():
            metrics[name][b, t, n] = value
    return out, metrics, oracle.head_jsd(weights)


@pytest.mark.parametrize("implementation", cases.implementations(ATTENTION))
class TestCrossAttention:
    @pytest.mark.parametrize("dtype", cases.DTYPES)
    def test_agrees_with_oracle(self, implementation, dtype, rng):
        q, k, v, groups = arrays(rng, dtype)
        out, metrics, divergence = expected(q, k, v, groups)
        options = {"scale": SCALE, "implementation": implementation}
        got, moments = cases.compiled(cross_attention, **options)(q, k, v, groups)
        assert got.dtype == dtype
        cases.assert_near(got.astype(jnp.float32), out, OUTPUT[dtype], "output")
        for field, (name, bound) in BOUNDS.items():
            if name in oracle.SINGLE_POSITIONS:
                assert np.isnan(getattr(moments, field)).all(), name
            else:
                cases.assert_near(getattr(moments, field), metrics[name], bound, name)
        jsd = cases.compiled(cross_dispersion, **options)(q, k, groups)
        cases.assert_near(jsd, divergence, cases.DISPERSION, "head_jsd")

    def test_output_is_the_same_without_moments(self, implementation, rng):
        q, k, v, groups = arrays(rng)
        options = {"scale": SCALE, "moments": False, "implementation": implementation}
        out, moments = cases.compiled(cross_attention, **options)(q, k, v, groups)
        assert moments is None
        cases.assert_near(out, expected(q, k, v, groups)[0], OUTPUT["float32"], "output")


def test_blocks_of_queries_do_not_change_the_result(rng, monkeypatch):
    def both(q, k, v, groups):
        return cross_attention(q, k, v, groups, scale=SCALE), cross_dispersion(q, k, groups, scale=SCALE)

    inputs = arrays(rng)
    whole = jax.jit(both)(*inputs)
    monkeypatch.setattr(xla, "BLOCK_ENTRIES", 2 * B * K * G * GROUPS * SIZE)
    parts = jax.jit(lambda *inputs: both(*inputs))(*inputs)  # a new function, which is traced again
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)
