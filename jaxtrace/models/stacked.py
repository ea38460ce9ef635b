"""Layers stacked for `lax.scan`: one period of the layer pattern at a time."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp


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


def join(repeated: list[Any], rest: list[Any]) -> Any:
    """One tree with a leading axis of L layers, from the P trees that a scan gave (or none) and those of the rest."""

    def interleaved(*xs: jax.Array) -> jax.Array:
        return jnp.stack(xs, axis=1).reshape(-1, *xs[0].shape[1:])

    parts = [jax.tree.map(interleaved, *repeated)] if repeated else []
    parts += [jax.tree.map(lambda *xs: jnp.stack(xs), *rest)] if rest else []
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)
