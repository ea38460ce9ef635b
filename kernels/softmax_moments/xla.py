"""Softmax moments for XLA: only sums and maxima along the row, which every backend vectorises and fuses."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..moments import MASKED, Alphas, Moments
from .reference import tempered
from .types import SoftmaxSums

BLOCK = 256


def softmax_moments(
    logits: Float[Array, "R V"], *, alphas: Alphas, temperature: Float[Array, " R"] | None
) -> SoftmaxSums:
    """Compute softmax_moments with XLA's own reductions."""
    logits = tempered(logits, temperature)
    largest, top1, second = top_two(logits)
    return SoftmaxSums(Moments.of(logits, alphas=alphas, largest=largest), top1, second)


def top_two(logits: Float[Array, "R V"]) -> tuple[Float[Array, " R"], Int[Array, " R"], Float[Array, " R"]]:
    """Return each row's largest score, the first index that has it, and the next largest score.

    One pass over the row computes the maxima of blocks; all later work reads only these and one block. An argmax
    reduces pairs entry by entry on a CPU (96 rows of 32,000: 4.7 ms, against 0.4 ms for a maximum).
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


def _first_index_of(values: Float[Array, "R X"], value: Float[Array, " R"]) -> Int[Array, " R"]:
    indices = jnp.arange(values.shape[-1], dtype=jnp.int32)
    index = jnp.min(jnp.where(values == value[..., None], indices, values.shape[-1]), axis=-1)
    return jnp.minimum(index, values.shape[-1] - 1)  # a NaN row has no such index


def _largest_but(values: Float[Array, "R X"], index: Int[Array, " R"]) -> Float[Array, " R"]:
    indices = jnp.arange(values.shape[-1], dtype=jnp.int32)
    return jnp.max(jnp.where(indices == index[..., None], MASKED, values), axis=-1)
