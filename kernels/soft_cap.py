"""Soft cap of scores and logits (Gemma 2)."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def soft_capped(x: Float[Array, "*r"], cap: float | None) -> Float[Array, "*r"]:
    """Return cap · tanh(x / cap), or x itself without a cap."""
    return x if cap is None else cap * jnp.tanh(x / cap)
