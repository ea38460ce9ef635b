"""Rotary position embedding, in float32 for every dtype of the model."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxtrace.models.config import LinearScaling, Llama3Scaling, Rope

Rotation = tuple[
    Float[Array, "B T 1 R2"], Float[Array, "B T 1 R2"]
]  # cosine and sine, with an axis to broadcast over heads


def inverse_frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """Return the radians per position of each rotated pair of a head's dimensions, float32 [R/2].

    The first R = ⌊fraction · H⌋ dimensions are rotated.

    With `Llama3Scaling`, wavelengths above original_context / low_freq_factor are stretched by `factor`, wavelengths
    below original_context / high_freq_factor are kept, and the others are interpolated (Llama 3.1 model card).
    """
    rotated = int(rope.fraction * head_dim)
    exponents = np.arange(0, rotated, 2, dtype=np.float32) / rotated
    frequency = (1.0 / rope.theta**exponents).astype(np.float32)
    match rope.scaling:
        case None:
            return frequency
        case LinearScaling(factor):
            return (frequency / factor).astype(np.float32)
        case Llama3Scaling(factor, low, high, context):
            turns = context * frequency / (2 * np.pi)  # number of full turns over the original context
            blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
            return ((1 - blend) * frequency / factor + blend * frequency).astype(np.float32)


def rotation(rope: Rope, head_dim: int, position: Int[Array, "B T"]) -> Rotation:
    """Return the cosine and sine of every position's angles."""
    angle = position[..., None, None].astype(jnp.float32) * inverse_frequencies(rope, head_dim)
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x: Float[Array, "B T N H"], by: Rotation) -> Float[Array, "B T N H"]:
    """Rotate dimension i together with i + R/2, the order of Llama weights in Hugging Face checkpoints."""
    cos, sin = by
    pairs = cos.shape[-1]
    first, second, kept = jnp.split(x, [pairs, 2 * pairs], axis=-1)
    first, second = first.astype(jnp.float32), second.astype(jnp.float32)
    turned = first * cos - second * sin, second * cos + first * sin
    return jnp.concatenate([*(each.astype(x.dtype) for each in turned), kept], axis=-1)
