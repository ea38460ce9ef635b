"""Reference head dispersion: every head's weights, their mean, and the entropies of both."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..attention import Keys, Queries, Starts, Window, positions, visible_keys
from ..prefill_attention.reference import attention_weights, pairwise_entropy
from ..soft_cap import Cap


def head_dispersion(
    q: Queries, k: Keys, start: Starts, *, scale: float, window: Window, soft_cap: Cap
) -> Float[Array, "B T"]:
    """Compute head_dispersion from all weights at once."""
    mask = visible_keys(positions(q, start), k.shape[3], window)
    return divergence(attention_weights(q, k, mask, scale, soft_cap))


def divergence(weights: Float[Array, "B K G T S"]) -> Float[Array, "B T"]:
    """Return the Jensen–Shannon divergence over the heads of attention weights."""
    mixture = jnp.mean(weights, axis=(1, 2))
    return jnp.maximum(pairwise_entropy(mixture) - jnp.mean(pairwise_entropy(weights), axis=(1, 2)), 0.0)
