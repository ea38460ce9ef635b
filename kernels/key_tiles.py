"""Attention over a long cache for XLA: one tile of keys after another, reading only tiles that some query sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .attention import Mask, PerQuery

TILE = 512  # keys
LONG = 1024  # cache slots; from this length on, several queries read the cache tile by tile

Carry = TypeVar("Carry")


def reads_tiles(queries: int, keys: int) -> bool:
    """Return whether a cache is read in tiles; a single query holds all its scores, which operations then share."""
    return queries > 1 and keys >= LONG


def fold_key_tiles(
    step: Callable[[Carry, Callable[[Array, int], Array], Mask, Array], Carry],
    init: Carry,
    position: PerQuery,
    first: PerQuery,
    keys: int,
) -> Carry:
    """Fold `step` over the tiles of a cache, in order.

    Args:
      step: function of (carry, function that slices the tile from an array along an axis of keys, mask of the tile's
        keys that each query sees, slots of the tile); returns the next carry.
      first: first key that each query sees.
      keys: number of cache slots, at least `TILE`.
    """
    lowest, highest = jnp.min(first), jnp.max(position)

    def fold(carry: Carry, i: Int[Array, ""]) -> tuple[Carry, None]:
        begin = i * TILE
        at = jnp.minimum(begin, keys - TILE)  # the last tile may overlap the one before it
        slots = at + jnp.arange(TILE)
        mask = (slots <= position[..., None]) & (slots >= jnp.maximum(first[..., None], begin))

        def work(carry: Carry) -> Carry:
            cut = lambda x, axis: jax.lax.dynamic_slice_in_dim(x, at, TILE, axis)  # noqa: E731
            return step(carry, cut, mask, slots)

        visible = (begin <= highest) & (begin + TILE > lowest)
        return jax.lax.cond(visible, work, lambda carry: carry, carry), None

    return jax.lax.scan(fold, init, jnp.arange(-(-keys // TILE)))[0]
