"""A row of NaN yields NaN for that row alone, under jit as without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtrace.kernels import softmax_moments, unembed_moments


@pytest.mark.parametrize("implementation", ["xla", "reference"])
@pytest.mark.parametrize("whole", [True, False], ids=["all of it", "one entry"])
def test_a_row_of_nan_is_nan(implementation, whole):
    logits = jax.random.normal(jax.random.key(0), (3, 500))
    logits = logits.at[1].set(jnp.nan) if whole else logits.at[1, 7].set(jnp.nan)
    rows = jax.jit(lambda x: softmax_moments(x, alphas=(0.5, 2.0), implementation=implementation))(logits)
    for metric in (rows.moments.entropy, rows.moments.varentropy, rows.moments.renyi.sum(-1), rows.moments.p_max):
        assert np.isnan(metric[1])
        assert np.isfinite(metric[jnp.array([0, 2])]).all()


@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_a_hidden_state_of_nan_is_nan(implementation):
    hidden = jax.random.normal(jax.random.key(0), (2, 3, 8)).at[0, 1].set(jnp.nan)
    unembedding = jax.random.normal(jax.random.key(1), (50, 8))
    rows = jax.jit(lambda h: unembed_moments(h, unembedding, implementation=implementation))(hidden)
    assert np.isnan(rows.moments.entropy[0, 1]) and np.isnan(rows.kl[0, 1])
    assert np.isfinite(rows.moments.entropy).sum() == 5
