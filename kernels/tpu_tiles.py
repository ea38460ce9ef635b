"""Helpers of the Pallas TPU kernels: sums over one tile of scores after another, about a growing maximum.

Scores are [..., C] and a row's state [..., 1], all float32. A NaN among the scores reaches the sums, whatever the
hardware's maximum makes of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import tpu as pltpu

from .moments import MASKED, Alphas
from .tiles import RunningSums, power

LANES = 128
SUBLANES = 8
LARGEST_INDEX = 1 << 24  # up to here a float32 holds every index


class TopTwo(NamedTuple):
    """Top two scores of a row so far.

    Attributes:
      largest: largest score.
      index: lowest index with the largest score, as a float.
      second: next largest score.
    """

    largest: Any
    index: Any
    second: Any


def empty_sums(rows: int, alphas: Alphas = ()) -> RunningSums:
    """Return the sums of rows with no score."""
    zero = jnp.zeros((rows, 1), jnp.float32)
    return RunningSums(zero, zero, zero, (zero,) * len(alphas), zero if 0 in alphas else None)


def empty_top(rows: int) -> TopTwo:
    """Return the top two of rows with no score."""
    masked = jnp.full((rows, 1), MASKED, jnp.float32)
    return TopTwo(masked, jnp.zeros((rows, 1), jnp.float32), masked)


def interpreter(interpret: bool) -> Any:
    """Return the `interpret` argument of `pl.pallas_call`."""
    return pltpu.InterpretParams() if interpret else False


def mask_absent(scores: Any, where: Any) -> Any:
    """Return the scores with absent ones, and ones outside `where`, set to `MASKED`."""
    return jnp.where((scores <= MASKED) | ~where, MASKED, scores)


def add_sums(x: RunningSums, y: RunningSums) -> RunningSums:
    """Add the sums of two disjoint parts about one maximum."""
    return jax.tree.map(jnp.add, x, y)


def tile_sums(scores: Any, m: Any, alphas: Alphas = (), scale: Any = 1.0) -> tuple[Any, Any, RunningSums]:
    """Return (u, e^u, their sums) of a tile about m, u times `scale`; absent scores add nothing; m may be `MASKED`."""
    u = jnp.maximum((scores - jnp.maximum(m, MASKED / 2)) * scale, MASKED)
    e = jnp.exp(u)
    eu = e * u
    r = (total((scores > MASKED).astype(jnp.float32) if alpha == 0 else power(alpha, e, u)) for alpha in alphas)
    c = total(jnp.where(scores <= MASKED, 0.0, u)) if 0 in alphas else None
    return u, e, RunningSums(total(e), total(eu), total(eu * u), tuple(r), c)


def total(x: Any) -> Any:
    """Sum a tile's columns by halves down to one register, the order in which float32 loses least."""
    while x.shape[-1] % (2 * LANES) == 0:
        half = x.shape[-1] // 2
        x = x[..., :half] + x[..., half:]
    return jnp.sum(x, axis=-1, keepdims=True)


def largest_of(scores: Any) -> Any:
    """Return the largest score of each row of a tile."""
    return jnp.max(scores, axis=-1, keepdims=True)


def first_column_of(scores: Any, value: Any) -> Any:
    """Return the first column of each row that holds a value."""
    columns = lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    return jnp.min(jnp.where(scores == value, columns, scores.shape[1]), axis=1, keepdims=True)


def update_top(top: TopTwo, scores: Any, first: Any) -> TopTwo:
    """Return the top two of a row after one more tile; the tile's first column is entry `first` of the row."""
    best = largest_of(scores)

    def search() -> tuple[Any, Any]:
        at = first_column_of(scores, best)
        next_best = largest_of(jnp.where(lax.broadcasted_iota(jnp.int32, scores.shape, 1) == at, MASKED, scores))
        ahead = best > top.largest
        second = jnp.where(ahead, jnp.maximum(top.largest, next_best), jnp.maximum(top.second, best))
        return jnp.where(ahead, (first + at).astype(jnp.float32), top.index), second

    index, second = lax.cond(jnp.any(best > top.second), search, lambda: (top.index, top.second))
    return TopTwo(jnp.maximum(top.largest, best), index, second)


def packed(columns: Any) -> Any:
    """Pack a tree of arrays [R, 1] side by side into as few lanes as hold them: [R, 128] for up to 128 arrays."""
    leaves = jax.tree.leaves(columns)
    shape = len(leaves[0]), -(-len(leaves) // LANES) * LANES
    lanes = lax.broadcasted_iota(jnp.int32, shape, 1)
    result = jnp.zeros(shape, jnp.float32)
    for lane, column in enumerate(leaves):
        result = jnp.where(lanes == lane, column, result)
    return result


def unpacked(x: Any, like: Any) -> Any:
    """Return the tree that was `packed`; `like` has its structure."""
    leaves, structure = jax.tree.flatten(like)
    return structure.unflatten(x[..., lane : lane + 1] for lane in range(len(leaves)))
