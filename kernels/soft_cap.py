"""Soft cap of scores and logits (Gemma 2)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

Cap = float | None  # soft cap c of scores, which become c · tanh(scores / c)


def soft_capped(x: Float[Array, "*r"], cap: Cap) -> Float[Array, "*r"]:
    """Return cap · tanh(x / cap), or x itself without a cap."""
    return x if cap is None else cap * jnp.tanh(x / cap)
