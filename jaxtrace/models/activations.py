"""Activation functions of feed-forward blocks, by name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtrace.models.config import ClampedGate

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


def gated(activation: str | ClampedGate, gate: Float[Array, "*r F"], up: Float[Array, "*r F"]) -> Float[Array, "*r F"]:
    """Return act(gate) · up, or the clamped form of it."""
    if not isinstance(activation, ClampedGate):
        return ACTIVATIONS[activation](gate) * up
    limit = activation.limit
    gate, up = jnp.minimum(gate, limit), jnp.clip(up, -limit, limit)
    return (up + 1) * gate * jax.nn.sigmoid(activation.alpha * gate)
