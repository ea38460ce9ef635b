"""Where each parameter lives on a mesh: logical names of its axes, and rules that send them to mesh axes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxtrace.errors import ConfigError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, abstract_params

Axes = tuple[str | None, ...]

# Logical axes of parameters by their name; norms and what is not here aside.
AXES: dict[str, Axes] = {
    "embedding": ("vocab", "embed"),
    "unembedding": ("vocab", "embed"),
    "positions": (None, "embed"),
    "q": ("heads", "head_dim", "embed"),
    "k": ("kv_heads", "head_dim", "embed"),
    "v": ("kv_heads", "head_dim", "embed"),
    "o": ("embed", "heads", "head_dim"),
    "q_bias": ("heads", "head_dim"),
    "k_bias": ("kv_heads", "head_dim"),
    "v_bias": ("kv_heads", "head_dim"),
    "o_bias": ("embed",),
    "gate": ("feed_forward", "embed"),
    "up": ("feed_forward", "embed"),
    "down": ("embed", "feed_forward"),
    "gate_bias": ("feed_forward",),
    "up_bias": ("feed_forward",),
    "down_bias": ("embed",),
}
# The image encoder keeps its heads folded.
VISION_AXES = AXES | dict.fromkeys("qkv", ("heads", "embed")) | {"o": ("embed", "heads")}


@dataclass(frozen=True)
class ShardingRules:
    """Logical axis → mesh axis over which it is split, None for not at all.

    A mesh axis that the mesh lacks, or whose size does not divide the dimension, splits nothing; but heads that it does
    not divide are each split along their own width instead.

    Raises:
      ConfigError: two axes of one parameter would be split over one mesh axis.
    """

    batch: str | None = "data"
    vocab: str | None = "model"
    embed: str | None = None
    heads: str | None = "model"
    kv_heads: str | None = "model"
    head_dim: str | None = None
    feed_forward: str | None = "model"

    def __post_init__(self):
        for name, axes in AXES.items():
            for one, other in itertools.combinations(filter(None, axes), 2):
                if getattr(self, one) is not None and getattr(self, one) == getattr(self, other):
                    raise ConfigError(
                        f"sharding rules: {one} and {other} of {name} both go to mesh axis {getattr(self, one)!r}; "
                        "send one of them elsewhere"
                    )

    def spec(self, axes: Axes, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        """How a parameter of given logical axes and shape is split."""

        def over(axis: str | None, size: int) -> str | None:
            target = axis and getattr(self, axis)
            return target if target in mesh.shape and size % mesh.shape[target] == 0 else None

        split = [over(axis, size) for axis, size in zip(axes, shape, strict=True)]
        heads = [i for i, axis in enumerate(axes) if axis in ("heads", "kv_heads")]
        if heads and "head_dim" in axes:
            width = axes.index("head_dim")
            if split[heads[0]] is None and split[width] is None:
                split[width] = over(axes[heads[0]], shape[width])
        return PartitionSpec(*split)


def param_shardings(
    config: DecoderConfig, mesh: Mesh, rules: ShardingRules = ShardingRules(), *, stacked: bool = False
) -> Params:
    """A sharding for every parameter.

    Args:
      config: of the decoder.
      mesh: to live on.
      rules: which logical axes are split.
      stacked: layers stacked for a scan; their leading axis is not split.

    Returns:
      A tree of NamedSharding, in the layout of the parameters.
    """

    def sharding(keys: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        names = [getattr(key, "key", getattr(key, "name", None)) for key in keys]
        ahead = (None,) * ("repeated" in names)
        axes = (*ahead, *logical_axes(names, leaf.ndim - len(ahead)))
        return NamedSharding(mesh, rules.spec(axes, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding, abstract_params(config, stacked=stacked))


def state_shardings(shapes: Any, mesh: Mesh, rules: ShardingRules = ShardingRules()) -> Any:
    """A sharding for everything that a batch of rows carries from step to step.

    Args:
      shapes: the state's. Every array has the rows first, but for keys and values of stacked layers; keys are
        [B, K, H, S] and values [B, K, S, H].
      mesh: to live on.
      rules: which logical axes are split.
    """
    heads = {"k": ("kv_heads", "head_dim", None), "v": ("kv_heads", None, "head_dim")}

    def sharding(keys: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        names = [getattr(key, "key", getattr(key, "name", None)) for key in keys]
        ahead = (None,) * ("repeated" in names)
        after = heads.get(names[-1] or "") if names[0] == "cache" else None
        return NamedSharding(
            mesh, rules.spec((*ahead, "batch", *(after or (None,) * (leaf.ndim - 1))), leaf.shape, mesh)
        )

    return jax.tree_util.tree_map_with_path(sharding, shapes)


def logical_axes(names: list[str | None], dimensions: int) -> Axes:
    """Logical axes of the parameter at a place."""
    *parents, name = names
    if name in ("weight", "bias") and dimensions == 1:
        return ("head_dim",) if parents[-1] in ("q_norm", "k_norm") else ("embed",)
    table = VISION_AXES if names[0] == "vision" else AXES
    return table.get(name or "", (None,) * dimensions)
