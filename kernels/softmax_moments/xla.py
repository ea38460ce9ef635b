"""softmax_moments for XLA: only sums and maxima along the row, which every backend vectorises and fuses."""

import jax.numpy as jnp

from ..moments import FLOOR, MASKED, Moments
from .types import SoftmaxMoments

BLOCK = 256


def softmax_moments(logits, *, alphas):
    logits = logits.astype(jnp.float32)
    largest, top1, second = top_two(logits)
    moments = Moments.of(logits, alphas=alphas, largest=largest)
    return SoftmaxMoments(moments, top1, top1_top2_gap(moments, second))


def top_two(logits):
    """Each row's largest score, the first index that has it, and the next largest score.

    One pass over the row takes the maxima of blocks; the rest looks at those and at one block. An argmax reduces pairs
    entry by entry on a CPU (96 rows of 32,000: 4.7 ms, against 0.4 ms for a maximum).
    """
    size = logits.shape[-1]
    block = max(width for width in range(1, BLOCK + 1) if size % width == 0)
    blocks = logits.reshape(*logits.shape[:-1], size // block, block)
    maxima = jnp.max(blocks, axis=-1)
    largest = jnp.max(maxima, axis=-1)
    outer = _first_index_of(maxima, largest)
    best = jnp.take_along_axis(blocks, outer[..., None, None], axis=-2)[..., 0, :]
    inner = _first_index_of(best, largest)
    second = jnp.maximum(_largest_but(best, inner), _largest_but(maxima, outer))
    return largest, outer * block + inner, second


def top1_top2_gap(moments, second):
    """p₁ − p₂ of each row, from its second largest score."""
    return moments.p_max * (1 - jnp.exp(jnp.maximum(second - moments.m, FLOOR)))


def _first_index_of(values, value):
    indices = jnp.arange(values.shape[-1], dtype=jnp.int32)
    index = jnp.min(jnp.where(values == value[..., None], indices, values.shape[-1]), axis=-1)
    return jnp.minimum(index, values.shape[-1] - 1)  # a row of NaN has none


def _largest_but(values, index):
    indices = jnp.arange(values.shape[-1], dtype=jnp.int32)
    return jnp.max(jnp.where(indices == index[..., None], MASKED, values), axis=-1)
