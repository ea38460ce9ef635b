"""head_dispersion, obviously: every head's weights, their mean, and the entropies of both."""

import jax.numpy as jnp

from ..attention import positions, visible_keys
from ..prefill_attention.reference import attention_weights, entropy_of


def head_dispersion(q, k, start, *, scale, window, soft_cap):
    mask, _ = visible_keys(positions(q, start), k.shape[3], window)
    return divergence(attention_weights(q, k, mask, scale, soft_cap))


def divergence(weights):
    """Jensen–Shannon divergence [B, T] over the heads of weights [B, K, G, T, S]."""
    mixture = jnp.mean(weights, axis=(1, 2))
    return jnp.maximum(entropy_of(mixture) - jnp.mean(entropy_of(weights), axis=(1, 2)), 0.0)
