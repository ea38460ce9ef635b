"""Layers stacked for `lax.scan`: one period of the layer pattern at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from jaxtrace.kernels.dispatch import target_platform

LANES = 128  # entries of a row of a TPU's registers


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StackedLayers:
    """Trees of L layers whose kinds repeat with period P.

    Attributes:
      repeated: P trees; the p-th holds layers p, p + P, … on a leading axis of length L // P.
      tail: trees of the last L % P layers.
    """

    repeated: list[Any]
    tail: list[Any]

    @classmethod
    def of(cls, layers: list[Any], period: int) -> StackedLayers:
        """Stack a list of layers."""
        scanned = len(layers) - len(layers) % period
        stack = lambda p: jax.tree.map(lambda *xs: jnp.stack(xs), *layers[p:scanned:period])  # noqa: E731
        return cls([stack(p) for p in range(period)], list(layers[scanned:]))

    def layers(self) -> list[Any]:
        """Return the layers as a list."""
        repeats = len(jax.tree.leaves(self.repeated)[0])
        scanned = [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(repeats) for tree in self.repeated]
        return [*scanned, *self.tail]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerOfStack:
    """One layer of the stacked weights of experts. A loop over experts reads its parts where they are.

    A slice of the layer as the loop's operand would be a copy: XLA then reads and writes all experts in each step.

    Attributes:
      stack: weights of all layers.
      layer: number of the layer in the stack.
      swapped: True if the last two axes of the stack are swapped, see `of`.
    """

    stack: Float[Array, "L E ..."]
    layer: Int[Array, ""]
    swapped: bool = dataclasses.field(default=False, metadata={"static": True})

    @classmethod
    def of(cls, stack: Array, layer: Array) -> LayerOfStack:
        """Return a layer of a stack, with the axes in the order in which they lie in memory.

        A TPU keeps a matrix [D, F] as [F, D] if 128 divides D alone, and XLA would copy the whole stack to read it as
        [D, F] in a loop: 2.0 GiB in each step of Gemma 4 26B on v5e-16.
        """
        matrices = target_platform() == "tpu" and stack.ndim == 4
        swapped = matrices and stack.shape[-1] % LANES > 0 and stack.shape[-2] % LANES == 0
        return cls(stack.swapaxes(-1, -2) if swapped else stack, layer, swapped)

    def __len__(self) -> int:
        return self.stack.shape[1]

    def __getitem__(self, expert: Any) -> Any:
        """Return an expert's weights; the layer itself for an ellipsis, as of an array."""
        return self if expert is ... else self._as_given(self.stack[self.layer, expert])

    def _as_given(self, weights: Array) -> Array:
        return weights.swapaxes(-1, -2) if self.swapped else weights

    def whole(self) -> Array:
        """Return the weights of all experts of the layer."""
        return self._as_given(self.stack[self.layer])


def whole_layer(weights: Array | LayerOfStack) -> Array:
    """Return the weights of all experts of a layer as one array."""
    return weights.whole() if isinstance(weights, LayerOfStack) else weights


def weight_specs(weights: Array | LayerOfStack, axes: tuple[str, ...] | None) -> Any:
    """Return the partition specs of the weights of experts that are split over mesh axes."""
    if isinstance(weights, LayerOfStack):
        stack: Any = PartitionSpec(None, axes)
        whole: Any = PartitionSpec()
        return dataclasses.replace(weights, stack=stack, layer=whole)
    return PartitionSpec(axes)


def keep_experts_whole(repeated: list[Any]) -> tuple[list[Any], Callable[[list[Any]], list[Any]]]:
    """Return what a scan slices in each step, and a function from the slices to the step's layers.

    The weights of experts are not sliced: a layer has `LayerOfStack` in their place.
    """
    is_expert = jax.tree_util.tree_map_with_path(
        lambda keys, _: any(getattr(key, "key", None) == "experts" for key in keys), repeated
    )
    sliced = jax.tree.map(lambda expert, x: jnp.arange(len(x)) if expert else x, is_expert, repeated)

    def layers(slices: list[Any]) -> list[Any]:
        return jax.tree.map(
            lambda expert, x, part: LayerOfStack.of(x, part) if expert else part, is_expert, repeated, slices
        )

    return sliced, layers


def layer_at(layers: list[Any] | StackedLayers, i: int) -> Any:
    """Return the tree of layer i (0-based)."""
    if not isinstance(layers, StackedLayers):
        return layers[i]
    period = len(layers.repeated)
    scanned = period * len(jax.tree.leaves(layers.repeated)[0]) if period else 0
    if i >= scanned:
        return layers.tail[i - scanned]
    return jax.tree.map(lambda x: x[i // period], layers.repeated[i % period])


def split_layers(tree: Any, layers: int, period: int | None) -> list[Any] | StackedLayers:
    """Split arrays with a leading axis of layers into the layout of parameters.

    Args:
      tree: arrays whose first axis is the layer.
      layers: number of layers.
      period: period of the layer pattern for stacked layers, None for a list.
    """
    part = lambda index: jax.tree.map(lambda x: x[index], tree)  # noqa: E731
    scanned = 0 if period is None else layers - layers % period
    tail = [part(i) for i in range(scanned, layers)]
    return tail if period is None else StackedLayers([part(slice(p, scanned, period)) for p in range(period)], tail)


def join_layers(repeated: list[Any], tail: list[Any], kept: Sequence[int] | None = None) -> Any:
    """Join layers into one tree with a leading axis of layers.

    Args:
      repeated: P trees that a scan returned, or none.
      tail: one tree per remaining layer.
      kept: indices of the scan's layers to keep; None keeps all.
    """

    def interleaved(*xs: jax.Array) -> jax.Array:
        layers = jnp.stack(xs, axis=1).reshape(-1, *xs[0].shape[1:])
        return layers if kept is None or len(kept) == len(layers) else layers[np.array(kept, int)]

    parts = [jax.tree.map(interleaved, *repeated)] if repeated else []
    parts += [jax.tree.map(lambda *xs: jnp.stack(xs), *tail)] if tail else []
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)
