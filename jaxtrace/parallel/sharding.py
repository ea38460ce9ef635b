"""Where each parameter lives on a mesh: logical names of its axes, and rules that send them to mesh axes."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxtrace.errors import ConfigError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, abstract_params
from jaxtrace.models.on_mesh import KV_HEADS, PARTS, ROWS
from jaxtrace.parallel.mesh import fitted

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
    """Logical axis → mesh axes over which it is split; none leaves it whole.

    Axes that the mesh lacks split nothing, and neither do those that together do not divide the dimension.

    Raises:
      ConfigError: two axes of one parameter would be split over one mesh axis.
    """

    batch: tuple[str, ...] = ROWS
    vocab: tuple[str, ...] = PARTS
    embed: tuple[str, ...] = ()
    heads: tuple[str, ...] = PARTS
    kv_heads: tuple[str, ...] = KV_HEADS
    head_dim: tuple[str, ...] = ()
    feed_forward: tuple[str, ...] = PARTS

    def __post_init__(self):
        for name, axes in AXES.items():
            for one, other in itertools.combinations(filter(None, axes), 2):
                if both := sorted({*getattr(self, one)} & {*getattr(self, other)}):
                    raise ConfigError(
                        f"sharding rules: {one} and {other} of {name} both go to mesh axis {both[0]!r}; "
                        "send one of them elsewhere"
                    )

    def spec(self, axes: Axes, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        """How an array of given logical axes and shape is split."""

        def over(axis: str | None, size: int) -> tuple[str, ...] | str | None:
            there = [name for name in getattr(self, axis) if name in mesh.shape] if axis else []
            if not there or size % math.prod(mesh.shape[name] for name in there):
                return None
            return tuple(there) if len(there) > 1 else there[0]

        return PartitionSpec(*map(over, axes, shape))


def param_shardings(
    config: DecoderConfig, mesh: Mesh, rules: ShardingRules = ShardingRules(), *, stacked: bool = False
) -> Params:
    """A sharding for every parameter, on the mesh as it is `fitted` to the decoder.

    A table of embeddings that its mesh axes do not divide is split along its width where it is only looked up in, and
    whole on every device where logits are made of it: each makes its part of them all the same.

    Args:
      config: of the decoder.
      mesh: to live on.
      rules: which logical axes are split.
      stacked: layers stacked for a scan; their leading axis is not split.

    Returns:
      A tree of NamedSharding, in the layout of the parameters.

    Raises:
      ConfigError: the mesh does not divide the decoder.
    """
    mesh = fitted(mesh, config)

    def sharding(keys: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        names = [getattr(key, "key", getattr(key, "name", None)) for key in keys]
        ahead = (None,) * ("repeated" in names)
        axes = (*ahead, *logical_axes(names, leaf.ndim - len(ahead)))
        spec = rules.spec(axes, leaf.shape, mesh)
        if names == ["embedding"] and not config.tied and not any(spec):
            spec = rules.spec((None, "vocab"), leaf.shape, mesh)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, abstract_params(config, stacked=stacked))


def state_shardings(shapes: Any, mesh: Mesh, rules: ShardingRules = ShardingRules()) -> Any:
    """A sharding for everything that a batch of rows carries from step to step.

    Args:
      shapes: the state's. Every array has the rows first, but for keys and values of stacked layers; keys are
        [B, K, H, S] and values [B, K, S, H].
      mesh: that of the parameters.
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
