"""What the Pallas TPU kernels share: sums over one tile of scores after another, about a maximum that grows.

Scores are [..., C] and what is kept of a row [..., 1], all float32. A NaN among the scores reaches the sums, whatever
the hardware's maximum makes of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import tpu as pltpu

from .moments import MASKED
from .tiles import Sums, power

LANES = 128
SUBLANES = 8
LARGEST_INDEX = 1 << 24  # up to which a float32 holds every index


class Top(NamedTuple):
    """The largest score so far, the lowest index that has it as a float, and the next largest score."""

    largest: Any
    index: Any
    second: Any


def no_sums(rows: int, alphas: tuple[float, ...] = ()) -> Sums:
    """Sums over nothing."""
    zero = jnp.zeros((rows, 1), jnp.float32)
    return Sums(zero, zero, zero, (zero,) * len(alphas))


def no_top(rows: int) -> Top:
    """Top two of nothing."""
    masked = jnp.full((rows, 1), MASKED, jnp.float32)
    return Top(masked, jnp.zeros((rows, 1), jnp.float32), masked)


def interpreter(interpret: bool) -> Any:
    """The `interpret` argument of `pl.pallas_call`."""
    return pltpu.InterpretParams() if interpret else False


def present(scores: Any, where: Any) -> Any:
    """Scores, those that are absent or not in `where` at MASKED."""
    return jnp.where((scores <= MASKED) | ~where, MASKED, scores)


def add(x: Sums, y: Sums) -> Sums:
    """Sums of two disjoint parts about one maximum."""
    return jax.tree.map(jnp.add, x, y)


def of_tile(scores: Any, m: Any, alphas: tuple[float, ...] = (), scale: Any = 1.0) -> tuple[Any, Any, Sums]:
    """(u, e^u, their sums) of a tile about m, u times `scale`; an absent score has no share, and m may be MASKED."""
    u = jnp.maximum((scores - jnp.maximum(m, MASKED / 2)) * scale, MASKED)
    e = jnp.exp(u)
    eu = e * u
    r = (total((scores > MASKED).astype(jnp.float32) if alpha == 0 else power(alpha, e, u)) for alpha in alphas)
    return u, e, Sums(total(e), total(eu), total(eu * u), tuple(r))


def total(x: Any) -> Any:
    """Sum over a tile's columns, by halves down to one register: float32 loses least that way."""
    while x.shape[-1] % (2 * LANES) == 0:
        half = x.shape[-1] // 2
        x = x[..., :half] + x[..., half:]
    return jnp.sum(x, axis=-1, keepdims=True)


def largest_of(scores: Any) -> Any:
    """Largest score of a tile."""
    return jnp.max(scores, axis=-1, keepdims=True)


def index_of(scores: Any, value: Any) -> Any:
    """The first column that holds a value."""
    columns = lax.broadcasted_iota(jnp.int32, scores.shape, 1)
    return jnp.min(jnp.where(scores == value, columns, scores.shape[1]), axis=1, keepdims=True)


def with_top(top: Top, scores: Any, first: Any) -> Top:
    """The top two of a row after another tile, whose first column is entry `first` of the row."""
    best = largest_of(scores)

    def look():
        at = index_of(scores, best)
        rest = largest_of(jnp.where(lax.broadcasted_iota(jnp.int32, scores.shape, 1) == at, MASKED, scores))
        ahead = best > top.largest
        second = jnp.where(ahead, jnp.maximum(top.largest, rest), jnp.maximum(top.second, best))
        return jnp.where(ahead, (first + at).astype(jnp.float32), top.index), second

    index, second = lax.cond(jnp.any(best > top.second), look, lambda: (top.index, top.second))
    return Top(jnp.maximum(top.largest, best), index, second)


def packed(columns: Any) -> Any:
    """A tree of arrays [R, 1] side by side in as few lanes as hold them: [R, 128] for up to 128."""
    leaves = jax.tree.leaves(columns)
    shape = len(leaves[0]), -(-len(leaves) // LANES) * LANES
    lanes = lax.broadcasted_iota(jnp.int32, shape, 1)
    result = jnp.zeros(shape, jnp.float32)
    for lane, column in enumerate(leaves):
        result = jnp.where(lanes == lane, column, result)
    return result


def unpacked(x: Any, like: Any) -> Any:
    """The tree that was `packed`, which has the structure of `like`."""
    leaves, structure = jax.tree.flatten(like)
    return structure.unflatten(x[..., lane : lane + 1] for lane in range(len(leaves)))
