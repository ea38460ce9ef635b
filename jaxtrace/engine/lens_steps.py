"""The lens of every n-th step: computed there alone, and missing at the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

Metrics = dict[str, Any]  # name → [B, P, …]


def at_every_nth(
    compute: Callable[[Int[Array, "B P"]], Metrics],
    every: int,
    step: Int[Array, " B"],
    count: Int[Array, " B"] | None,
    length: int,
) -> Metrics:
    """Return metrics [B, T, …] at the positions whose step `every` divides; NaN, or −1 for integers, at the others.

    A step of a batch in which no row takes the lens skips the computation, in one branch of the program: a program of
    each kind would compile the whole forward pass twice.

    Args:
      compute: function from P positions of each row, of which those from T on are ignored, to their metrics.
      every: distance between steps.
      step: number of the step at the first of the T positions.
      count: number of positions of each row before the padding; None for T.
      length: number of positions (T).
    """
    first = (-step % every)[:, None]
    at = first + every * jnp.arange(-(-length // every))
    some = jnp.any(at < (length if count is None else count[:, None]))
    shapes = jax.eval_shape(compute, at)
    metrics = jax.lax.cond(some, compute, lambda _: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), at)
    offset = jnp.arange(length) - first
    taken = (offset % every == 0) & some

    def spread(x: Array) -> Array:
        rest = (1,) * (x.ndim - 2)
        values = jnp.take_along_axis(x, (offset // every).reshape(*offset.shape, *rest), axis=1, mode="clip")
        missing = jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else -1
        return jnp.where(taken.reshape(*taken.shape, *rest), values, jnp.asarray(missing, x.dtype))

    return jax.tree.map(spread, metrics)
