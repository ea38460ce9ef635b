"""Kernels on a mesh: each device computes its own rows and heads, under `jax.shard_map`.

The mesh is the one that `jax.set_mesh` has set; it must be the parameters' mesh. Without a mesh, functions are called
directly.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxtrace.errors import ConfigError
from jaxtrace.kernels import UnembedMoments, unembed_moments

Axes = tuple[str, ...]

ROW_AXES: Axes = ("data",)  # split the rows of a batch
KV_HEAD_AXES: Axes = ("model",)  # split key/value heads that are too few for all devices
MODEL_AXES: Axes = ("model", "copies")  # split query heads, the vocabulary, and key/value heads if there are enough


def axes_size(axes: Axes) -> int:
    """Return the number of devices along mesh axes; 1 without a mesh."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape.get(axis, 1) for axis in axes)


def dividing_axes(axes: Axes, size: int) -> Axes | None:
    """Return the axes that the current mesh has, if together they split a dimension of this size, else None."""
    shape, parts = jax.sharding.get_abstract_mesh().shape, axes_size(axes)
    return tuple(axis for axis in axes if axis in shape) if parts > 1 and size % parts == 0 else None


def dividing_head_axes(num_heads: int, kv_heads: int) -> tuple[Axes | None, Axes | None]:
    """Return the axes that split query heads and key/value heads, such that each device has its queries' keys."""
    if num_heads % axes_size(MODEL_AXES) or kv_heads % axes_size(KV_HEAD_AXES):
        raise ConfigError(
            f"mesh: the current mesh does not divide {num_heads} heads ({kv_heads} key/value heads); "
            "set the mesh of the parameters"
        )
    return dividing_axes(MODEL_AXES, num_heads), dividing_kv_head_axes(kv_heads)


def dividing_kv_head_axes(kv_heads: int) -> Axes | None:
    """Return the axes of the current mesh that split key/value heads."""
    return dividing_axes(MODEL_AXES, kv_heads) or dividing_axes(KV_HEAD_AXES, kv_heads)


def use_mesh_of(params: dict[str, Any]) -> AbstractContextManager[Any]:
    """Return a context manager that sets the mesh of a decoder's parameters, if they are on one."""
    sharding = params["embedding"].sharding
    return jax.set_mesh(cast(Mesh, sharding.mesh)) if isinstance(sharding, NamedSharding) else nullcontext()


def map_shards(function: Callable[..., Any], in_specs: tuple[PartitionSpec, ...], out_specs: Any) -> Callable[..., Any]:
    """Return `function` mapped over the shards of its arguments; without a mesh, `function` itself."""
    if jax.sharding.get_abstract_mesh().empty:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def shard_rows(x: Array) -> Array:
    """Split an array by rows over the mesh; each device holds its rows whole."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(dividing_axes(ROW_AXES, len(x))))


def splits_vocabulary(size: int) -> bool:
    """Return whether the devices of the current mesh each hold a part of the vocabulary."""
    return dividing_axes(MODEL_AXES, size) is not None


def split_vocabulary(logits: Float[Array, "B T V"]) -> Float[Array, "B T V"]:
    """Split logits by rows and vocabulary over the mesh: otherwise the partitioner gathers the whole table."""
    if jax.sharding.get_abstract_mesh().empty:
        return logits
    rows, axes = dividing_axes(ROW_AXES, len(logits)), dividing_axes(MODEL_AXES, logits.shape[-1])
    return jax.lax.with_sharding_constraint(logits, PartitionSpec(rows, None, axes))


def sharded_unembed_moments(
    hidden: Float[Array, "G B T D"],
    unembedding: Float[Array, "V D"],
    targets: Int[Array, "B T"] | None,
    *,
    keep_logits: bool,
    **options: Any,
) -> UnembedMoments:
    """Compute `unembed_moments` of B · T rows; each device computes its rows over its part of the vocabulary.

    If the vocabulary does not divide evenly, every device holds the whole table and slices its part of it. Kept logits
    then have a few extra tokens, at −1e30. Where the last part would be empty, every device computes all of it.
    """
    groups, batch, length, width = hidden.shape
    vocab_size, devices = len(unembedding), axes_size(MODEL_AXES)
    part = -(-vocab_size // devices)
    excess = part * devices - vocab_size
    if excess >= part:
        part, devices, excess = vocab_size, 1, 0
    rows, axes = dividing_axes(ROW_AXES, batch), dividing_axes(MODEL_AXES, part * devices)
    moments = functools.partial(unembed_moments, keep_logits=keep_logits, axis_name=axes, **options)

    def shard_moments(hidden: Array, table: Array, targets: Array | None) -> UnembedMoments:
        if not excess:
            return moments(hidden, table, targets=targets)
        first = jax.lax.axis_index(axes) * part
        cut = functools.partial(jax.lax.dynamic_slice_in_dim, table)
        return moments(
            hidden, cut(first, part - excess), targets=targets, extra_rows=cut(first + part - excess, excess)
        )

    of_group, of_row = PartitionSpec(None, rows), PartitionSpec(rows)
    of_logits = PartitionSpec(rows, axes)
    out: Any = UnembedMoments(
        *cast(Any, (of_group, of_row, of_group, of_group, of_row, of_row, of_row, of_row, of_logits))
    )
    of_table = PartitionSpec(None if excess else axes)
    call = map_shards(shard_moments, (of_group, of_table, of_row), out)
    flat = hidden.reshape(groups, batch * length, width)
    return call(flat, unembedding, None if targets is None else targets.reshape(-1))


def largest_logits(logits: Float[Array, "B T V"], count: int) -> tuple[Float[Array, "B T K"], Int[Array, "B T K"]]:
    """Return the largest logits and their tokens, the lowest token first among equals; each device selects its own."""
    rows, axes = dividing_axes(ROW_AXES, len(logits)), dividing_axes(MODEL_AXES, logits.shape[-1])
    if axes is None:
        return jax.lax.top_k(logits, count)

    def shard_top_k(logits: Array) -> tuple[Array, Array]:
        values, tokens = jax.lax.top_k(logits, min(count, logits.shape[-1]))
        tokens += jax.lax.axis_index(axes) * logits.shape[-1]
        values, tokens = jax.lax.all_gather((values, tokens), axes, axis=-1, tiled=True)
        values, indices = jax.lax.top_k(values, count)
        return values, jnp.take_along_axis(tokens, indices, axis=-1)

    return map_shards(shard_top_k, (PartitionSpec(rows, None, axes),), PartitionSpec(rows))(logits)
