"""Rotary position embedding, in float32 for every dtype of the model."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxtrace.models.rope_config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    ProportionalScaling,
    Rope,
    YarnScaling,
)

Rotation = tuple[
    Float[Array, "B T 1 R2"], Float[Array, "B T 1 R2"]
]  # cosine and sine, with an axis to broadcast over heads


def inverse_frequencies(
    rope: Rope, head_dim: int, length: Int[Array, " B"]
) -> Float[np.ndarray, " R2"] | Float[Array, "B R2"]:
    """Return the radians per position of each rotated pair of a head's dimensions, float32.

    The first R = ⌊fraction · H⌋ dimensions are rotated. Formulas are those of transformers' `ROPE_INIT_FUNCTIONS`.

    Args:
      rope: rotary position embedding.
      head_dim: width of a head (H).
      length: number of tokens of each row, for a rope that depends on it.

    Returns:
      One row per row of `length` if the rope depends on it, otherwise one for all.
    """
    rotated = head_dim if isinstance(rope.scaling, ProportionalScaling) else int(rope.fraction * head_dim)
    exponents = np.arange(0, rotated, 2, dtype=np.float32) / rotated
    wavelength = (rope.theta**exponents).astype(np.float32)
    frequency = 1 / wavelength
    match rope.scaling:
        case None:
            return frequency
        case LinearScaling(factor):
            return frequency / np.float32(factor)
        case ProportionalScaling(fraction, factor):
            pairs = int(fraction * head_dim // 2)
            return np.where(np.arange(len(frequency)) < pairs, frequency / np.float32(factor), np.float32(0))
        case Llama3Scaling(factor, low, high, context):
            turns = context * frequency / (2 * np.pi)  # number of full turns over the original context
            kept = np.clip((turns - low) / (high - low), 0.0, 1.0) if low < high else turns > low
            return ((1 - kept) * frequency / factor + kept * frequency).astype(np.float32)
        case YarnScaling(factor) as scaling:
            stretched = _yarn_ramp(scaling, rope.theta, rotated)
            return (frequency / factor * stretched + frequency * (1 - stretched)).astype(np.float32)
        case LongRopeScaling(short, long, context):
            of_short, of_long = (1 / (np.array(factors, np.float32) * wavelength) for factors in (short, long))
            return jnp.where(length[:, None] > context, of_long, of_short)
        case DynamicScaling(factor, context):
            growth = jnp.maximum(factor * length / context - (factor - 1), 1)[:, None]
            return frequency * growth ** (-exponents * rotated / (rotated - 2))


def _yarn_ramp(scaling: YarnScaling, theta: float, rotated: int) -> Float[np.ndarray, " R2"]:
    """Return 0 for the pairs that keep their frequency, 1 for those that are stretched, and a line between them."""

    def pair(turns: float) -> float:
        """Return the pair that makes a number of turns over the original context."""
        return rotated * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rotated - 1)
    width = last - first if first != last else 0.001  # as in transformers
    return np.clip((np.arange(rotated // 2, dtype=np.float32) - first) / width, 0, 1)


def rotation(rope: Rope, head_dim: int, position: Int[Array, "B T"], length: Int[Array, " B"]) -> Rotation:
    """Return the cosine and sine of every position's angles in rows of some lengths, times the attention factor."""
    frequency = inverse_frequencies(rope, head_dim, length)
    if rope.by_length:
        frequency = frequency[:, None, None]
    angle = position[..., None, None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    if isinstance(rope.scaling, YarnScaling | LongRopeScaling):
        return cos * rope.scaling.attention_factor, sin * rope.scaling.attention_factor
    return cos, sin


def rotate(x: Float[Array, "B T N H"], by: Rotation) -> Float[Array, "B T N H"]:
    """Rotate dimension i together with i + R/2, the order of Llama weights in Hugging Face checkpoints."""
    cos, sin = by
    pairs = cos.shape[-1]
    first, second, kept = jnp.split(x, [pairs, 2 * pairs], axis=-1)
    first, second = first.astype(jnp.float32), second.astype(jnp.float32)
    turned = first * cos - second * sin, second * cos + first * sin
    return jnp.concatenate([*(each.astype(x.dtype) for each in turned), kept], axis=-1)
