"""NaN stays in its row: other rows are unaffected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import softmax_moments, unembed_moments
from jaxtrace.kernels.softmax_moments.api import OPERATION as SOFTMAX
from jaxtrace.kernels.unembed_moments.api import OPERATION as UNEMBED

from . import cases


@pytest.mark.parametrize("implementation", cases.implementations(SOFTMAX))
@pytest.mark.parametrize(("entries", "value"), [(slice(None), np.nan), (7, np.nan), (7, np.inf)], ids=str)
def test_logits_with_nan_or_infinity_affect_their_row_only(implementation, entries, value):
    logits = jax.random.normal(jax.random.key(0), (3, 500)).at[1, entries].set(value)
    rows = jax.jit(lambda x: softmax_moments(x, alphas=(0.5, 2.0), implementation=implementation))(logits)
    moments = rows.moments
    of_moments = (moments.entropy, moments.varentropy, moments.renyi.sum(-1), moments.p_max)
    for metric in (*of_moments, rows.self_certainty, rows.fisher_rao):
        assert np.isnan(metric[1])
        assert np.isfinite(metric[jnp.array([0, 2])]).all()


@pytest.mark.parametrize("implementation", cases.implementations(UNEMBED))
def test_hidden_state_with_nan_affects_its_row_only(implementation):
    hidden = jax.random.normal(jax.random.key(0), (2, 3, 8)).at[0, 1].set(jnp.nan)
    unembedding = jax.random.normal(jax.random.key(1), (50, 8))
    rows = jax.jit(lambda h: unembed_moments(h, unembedding, implementation=implementation))(hidden)
    assert np.isnan(rows.moments.entropy[0, 1]) and np.isnan(rows.kl[0, 1])
    assert np.isfinite(rows.moments.entropy).sum() == 5


ATTENTION = [(call, name) for call, operation in cases.ATTENTION for name in cases.implementations(operation)]


def attention_case(rng):
    """Return q, k, v, start: the queries of row 0 see no key and one key, the ones of row 1 see 149 and 150 of 300."""
    arrays = rng.normal(0, 1, (2, 2, 4, 64)), rng.normal(0, 1, (2, 2, 64, 300)), rng.normal(0, 1, (2, 2, 300, 64))
    return *(jnp.asarray(x, jnp.float32) for x in arrays), jnp.int32([-1, 148])


@pytest.mark.parametrize(("call", "implementation"), ATTENTION)
def test_query_with_nan_affects_itself_only(call, implementation, rng):
    q, k, v, start = attention_case(rng)
    q = q.at[1, 0, 2, 5].set(jnp.nan)
    run = cases.compiled(call, scale=0.1, implementation=implementation)
    for metric in run(q, k, v, start).values():
        is_nan = np.zeros(metric.shape, bool)
        is_nan[1, 0, 2 if call is not cases.dispersion else 0] = True
        np.testing.assert_array_equal(np.isnan(metric), is_nan)


@pytest.mark.parametrize(("call", "implementation"), [x for x in ATTENTION if x[1].startswith("pallas")])
def test_invisible_slots_may_hold_nan(call, implementation, rng):
    q, k, v, start = attention_case(rng)
    beyond = (jnp.arange(300) > start[:, None] + (call is not cases.decode))[:, None, None]
    run = cases.compiled(call, scale=0.1, implementation=implementation)
    clean = run(q, k, v, start)
    dirty = run(q, jnp.where(beyond, jnp.nan, k), jnp.where(beyond.swapaxes(2, 3), jnp.nan, v), start)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
