"""softmax_moments for XLA: only sums and maxima along the row, which every backend vectorises and fuses."""

import jax.numpy as jnp

from ..moments import FLOOR, MASKED, Moments
from .types import SoftmaxMoments


def softmax_moments(logits, *, alphas):
    logits = logits.astype(jnp.float32)
    moments = Moments.of(logits, alphas=alphas)
    top1 = first_index_of(logits, moments.m)
    return SoftmaxMoments(moments, top1, top1_top2_gap(logits, top1, moments))


def first_index_of(logits, value):
    """Index of the first entry equal to `value` (a variadic argmax reduces entry by entry on a CPU)."""
    size = logits.shape[-1]
    indices = jnp.arange(size, dtype=jnp.int32)
    index = jnp.min(jnp.where(logits == value[..., None], indices, size), axis=-1)
    return jnp.minimum(index, size - 1)


def top1_top2_gap(logits, top1, moments):
    """p₁ − p₂ of each row."""
    indices = jnp.arange(logits.shape[-1], dtype=jnp.int32)
    second = jnp.max(jnp.where(indices == top1[..., None], MASKED, logits), axis=-1)
    return moments.p_max * (1 - jnp.exp(jnp.maximum(second - moments.m, FLOOR)))
