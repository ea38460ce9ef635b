"""Attention over a long cache for XLA: one tile of keys after another, and only those that some query sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

TILE = 512  # keys
LONG = 1024  # slots of a cache from which on several queries go through it in tiles

Carry = TypeVar("Carry")


def in_tiles(queries: int, keys: int) -> bool:
    """Whether a cache is to be gone through in tiles; one query's scores are held at once, and shared by operations."""
    return queries > 1 and keys >= LONG


def over_key_tiles(
    step: Callable[[Carry, Callable[[Array, int], Array], Bool[Array, "B T S"], Bool[Array, "B T S"]], Carry],
    init: Carry,
    position: Int[Array, "B T"],
    first: Int[Array, "B T"],
    keys: int,
) -> Carry:
    """Folds the tiles of a cache, in order.

    Args:
      step: (what is carried, a function that cuts a tile out of an array along an axis of keys, the keys of the tile
        that each query sees, which of them is the first that it sees) → what is carried.
      init: carried into the first tile.
      position: of each query.
      first: key that each query sees.
      keys: slots of the cache, at least `TILE`.
    """
    lowest, highest = jnp.min(first), jnp.max(position)

    def fold(carry: Carry, i: Int[Array, ""]) -> tuple[Carry, None]:
        begin = i * TILE
        at = jnp.minimum(begin, keys - TILE)  # the last tile may overlap the one before it
        slots = at + jnp.arange(TILE)
        mask = (slots <= position[..., None]) & (slots >= jnp.maximum(first[..., None], begin))

        def work(carry: Carry) -> Carry:
            cut = lambda x, axis: jax.lax.dynamic_slice_in_dim(x, at, TILE, axis)  # noqa: E731
            return step(carry, cut, mask, mask & (slots == first[..., None]))

        seen = (begin <= highest) & (begin + TILE > lowest)
        return jax.lax.cond(seen, work, lambda carry: carry, carry), None

    return jax.lax.scan(fold, init, jnp.arange(-(-keys // TILE)))[0]
