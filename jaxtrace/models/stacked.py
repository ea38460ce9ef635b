"""Layers stacked for `lax.scan`: one period of the layer pattern at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stacked:
    """What belongs to L layers whose kinds repeat with period P.

    Attributes:
      repeated: P trees; the p-th holds layers p, p + P, … on a leading axis of L // P.
      rest: the trees of the L % P last layers.
    """

    repeated: list[Any]
    rest: list[Any]

    @classmethod
    def of(cls, layers: list[Any], period: int) -> Stacked:
        """Stacks a list of layers."""
        whole = len(layers) - len(layers) % period
        stack = lambda p: jax.tree.map(lambda *xs: jnp.stack(xs), *layers[p:whole:period])  # noqa: E731
        return cls([stack(p) for p in range(period)], list(layers[whole:]))

    def layers(self) -> list[Any]:
        """The list of layers again."""
        repeats = len(jax.tree.leaves(self.repeated)[0])
        whole = [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(repeats) for tree in self.repeated]
        return [*whole, *self.rest]


def layer_of(layers: list[Any] | Stacked, i: int) -> Any:
    """What belongs to the i-th of L layers, from 0."""
    if not isinstance(layers, Stacked):
        return layers[i]
    period = len(layers.repeated)
    whole = period * len(jax.tree.leaves(layers.repeated)[0]) if period else 0
    if i >= whole:
        return layers.rest[i - whole]
    return jax.tree.map(lambda x: x[i // period], layers.repeated[i % period])


def spread(tree: Any, layers: int, period: int | None) -> list[Any] | Stacked:
    """What stands on a leading axis of layers, as parameters are laid out: stacked by a period, or a list."""
    part = lambda at: jax.tree.map(lambda x: x[at], tree)  # noqa: E731
    whole = 0 if period is None else layers - layers % period
    rest = [part(i) for i in range(whole, layers)]
    return rest if period is None else Stacked([part(slice(p, whole, period)) for p in range(period)], rest)


def join(repeated: list[Any], rest: list[Any], kept: Sequence[int] | None = None) -> Any:
    """One tree with a leading axis of layers, from the P trees that a scan gave (or none) and those of the rest.

    `kept` are the places, among the layers of the scan, of those to keep; None keeps all.
    """

    def interleaved(*xs: jax.Array) -> jax.Array:
        layers = jnp.stack(xs, axis=1).reshape(-1, *xs[0].shape[1:])
        return layers if kept is None or len(kept) == len(layers) else layers[np.array(kept, int)]

    parts = [jax.tree.map(interleaved, *repeated)] if repeated else []
    parts += [jax.tree.map(lambda *xs: jnp.stack(xs), *rest)] if rest else []
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)
