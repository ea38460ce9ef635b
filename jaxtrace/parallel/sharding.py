"""Shardings of parameters and states: logical axes of each array, and rules that map them to mesh axes."""

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
from jaxtrace.models.on_mesh import MODEL_AXES, ROW_AXES
from jaxtrace.parallel.mesh import fit_mesh

Axes = tuple[str | None, ...]

# Logical axes of parameters by name, without norms; parameters that are absent here are not split.
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
    "output_gate": ("heads", "head_dim", "embed"),
    "output_gate_bias": ("heads", "head_dim"),
    "sinks": ("heads",),
    "gate": ("feed_forward", "embed"),
    "up": ("feed_forward", "embed"),
    "down": ("embed", "feed_forward"),
    "gate_bias": ("feed_forward",),
    "up_bias": ("feed_forward",),
    "down_bias": ("embed",),
    "projection": (None, "embed"),
}
# Weights of experts; each device holds whole experts.
EXPERT_AXES: dict[str, Axes] = {
    **dict.fromkeys(("gate", "up", "down"), ("expert", None, None)),
    **dict.fromkeys(("gate_bias", "up_bias", "down_bias"), ("expert", None)),
}
# Weights of gated delta nets, grouped by key head.
DELTA_NET_AXES: dict[str, Axes] = {
    **dict.fromkeys(("q", "k", "v", "gate", "decay", "beta"), ("kv_heads", "head_dim", "embed")),
    **dict.fromkeys(("q_conv", "k_conv", "v_conv"), ("kv_heads", "head_dim", None, None)),
    "o": ("embed", "kv_heads", "head_dim"),
}
# Weights of norms over queries and keys: [N, H] and [K, H], or [H] for norms of each head.
HEAD_NORM_AXES: dict[str | None, Axes] = {"q_norm": ("heads", "head_dim"), "k_norm": ("kv_heads", "head_dim")}
# The image encoder's heads are folded into the output axis.
VISION_AXES = AXES | dict.fromkeys("qkv", ("heads", "embed")) | {"o": ("embed", "heads")}


@dataclass(frozen=True)
class ShardingRules:
    """Mesh axes over which each logical axis is split; an empty tuple keeps it whole.

    A dimension also stays whole if the mesh lacks the axes, or if their product does not divide the dimension; for
    key/value heads the last axes are then dropped, and devices along them hold the same heads.

    Raises:
      ConfigError: two logical axes of one parameter map to the same mesh axis.
    """

    batch: tuple[str, ...] = ROW_AXES
    vocab: tuple[str, ...] = MODEL_AXES
    embed: tuple[str, ...] = ()
    heads: tuple[str, ...] = MODEL_AXES
    kv_heads: tuple[str, ...] = MODEL_AXES
    head_dim: tuple[str, ...] = ()
    feed_forward: tuple[str, ...] = MODEL_AXES
    expert: tuple[str, ...] = MODEL_AXES

    def __post_init__(self) -> None:
        for name, axes in AXES.items():
            for one, other in itertools.combinations(filter(None, axes), 2):
                if both := sorted({*getattr(self, one)} & {*getattr(self, other)}):
                    raise ConfigError(
                        f"sharding rules: {one} and {other} of {name} both map to mesh axis {both[0]!r}; "
                        "map one to another axis"
                    )

    def spec(self, axes: Axes, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        """Return the partition spec of an array from its logical axes and shape."""

        def over(axis: str | None, size: int) -> tuple[str, ...] | str | None:
            names = [name for name in getattr(self, axis) if name in mesh.shape] if axis else []
            while axis == "kv_heads" and size % math.prod(mesh.shape[name] for name in names):
                names.pop()
            if not names or size % math.prod(mesh.shape[name] for name in names):
                return None
            return tuple(names) if len(names) > 1 else names[0]

        return PartitionSpec(*map(over, axes, shape))


def param_shardings(
    config: DecoderConfig, mesh: Mesh, rules: ShardingRules = ShardingRules(), *, stacked: bool = False
) -> Params:
    """Return the sharding of every parameter, on the mesh fitted to the decoder.

    If the mesh axes do not divide a table of embeddings, it is split along its width when it is used for lookups only.
    When logits are computed from it, it is whole on every device, and each device computes its part of the logits.

    Args:
      config: decoder's config.
      mesh: mesh of the parameters.
      rules: mesh axes of each logical axis.
      stacked: True for layers stacked for a scan; their leading axis is not split.

    Returns:
      A tree of NamedSharding, in the layout of the parameters.

    Raises:
      ConfigError: the mesh does not divide the decoder.
    """
    mesh = fit_mesh(mesh, config)

    def sharding(keys: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        names, leading = _path(keys)
        axes = (*leading, *logical_axes(names, leaf.ndim - len(leading)))
        spec = rules.spec(axes, leaf.shape, mesh)
        lookup_only = names[-1] == "embedding" and not (config.tied and names == ["embedding"])
        if lookup_only and not any(spec):
            spec = rules.spec((None, "vocab"), leaf.shape, mesh)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, abstract_params(config, stacked=stacked))


def state_shardings(shapes: Any, mesh: Mesh, rules: ShardingRules = ShardingRules()) -> Any:
    """Return the sharding of every array that a batch of rows carries from step to step.

    Args:
      shapes: arrays of the state. Their first axis is the row, except in the cache of stacked layers; keys are
        [B, K, H, S], values [B, K, S, H], and states of delta nets as in `RecurrentState`.
      mesh: mesh of the parameters.
      rules: mesh axes of each logical axis.
    """
    heads = {"k": ("kv_heads", "head_dim", None), "v": ("kv_heads", None, "head_dim")}
    heads |= {"conv": (None, "kv_heads", None), "memory": ("kv_heads", None, None, None)}

    def sharding(keys: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        names, leading = _path(keys)
        axes = heads.get(names[-1] or "") if names[0] == "cache" else None
        axes = (*leading, "batch", *(axes or (None,) * (leaf.ndim - 1)))
        return NamedSharding(mesh, rules.spec(axes, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding, shapes)


def logical_axes(names: list[str | None], dimensions: int) -> Axes:
    """Return the logical axes of a parameter from its path."""
    *parents, name = names
    if parents and parents[-1] in HEAD_NORM_AXES:
        return HEAD_NORM_AXES[parents[-1]][-dimensions:]
    if "delta_net" in parents:
        return DELTA_NET_AXES.get(name or "", (None,) * dimensions)
    if name in ("weight", "bias") and dimensions == 1:
        return ("embed",)
    table = VISION_AXES if names[0] == "vision" else EXPERT_AXES if "experts" in parents else AXES
    return table.get(name or "", (None,) * dimensions)


def _path(keys: tuple[Any, ...]) -> tuple[list[str | None], Axes]:
    """Return the names on a leaf's path, and its leading axes: one for a stacked layer."""
    names = [getattr(key, "key", getattr(key, "name", None)) for key in keys]
    return names, (None,) * ("repeated" in names)
