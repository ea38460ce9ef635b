"""Kernels on a mesh: each device computes its own rows and heads, under `jax.shard_map`.

The mesh is the one that `jax.set_mesh` has set, which is that of the parameters; without one a function is called as it
is.
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

ROWS: Axes = ("data",)  # split a batch's rows
KV_HEADS: Axes = ("model",)  # split heads of keys and values
PARTS: Axes = ("model", "copies")  # split heads of queries, and the vocabulary


def parts(axes: Axes) -> int:
    """How many devices are along mesh axes; 1 where there is no mesh."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape.get(axis, 1) for axis in axes)


def split(axes: Axes, size: int) -> Axes | None:
    """Those of the axes that the mesh has, if together they split a dimension of this size, else None."""
    shape = jax.sharding.get_abstract_mesh().shape
    return tuple(axis for axis in axes if axis in shape) if parts(axes) > 1 and size % parts(axes) == 0 else None


def on_mesh_of(params: dict[str, Any]) -> AbstractContextManager[Any]:
    """Sets the mesh that a decoder's parameters are on, if they are on one."""
    sharding = params["embedding"].sharding
    return jax.set_mesh(cast(Mesh, sharding.mesh)) if isinstance(sharding, NamedSharding) else nullcontext()


def mapped(function: Callable[..., Any], in_specs: tuple[PartitionSpec, ...], out_specs: Any) -> Callable[..., Any]:
    """`function` of each device's parts of its arguments."""
    if jax.sharding.get_abstract_mesh().empty:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def split_heads(heads: int, kv_heads: int) -> tuple[Axes | None, Axes | None]:
    """How query heads are split, and those of keys and values, so that each device's queries see its own keys."""
    if heads % parts(PARTS) or kv_heads % parts(KV_HEADS):
        raise ConfigError("the mesh that is set does not divide the heads; set that of the parameters")
    return split(PARTS, heads), split(KV_HEADS, kv_heads)


def by_rows(x: Array) -> Array:
    """An array of rows of which every device has its own ones, whole."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(split(ROWS, len(x))))


def moments_of_logits(
    hidden: Float[Array, "G B T D"],
    unembedding: Float[Array, "V D"],
    targets: Int[Array, "B T"] | None,
    *,
    keep_logits: bool,
    **options: Any,
) -> UnembedMoments:
    """`unembed_moments` of B · T rows, by each device for its rows and its part of the vocabulary.

    A table that cannot be split evenly is whole on every device, which takes its part of it; logits, where they are
    kept, are then of a few more tokens, at −1e30.
    """
    groups, batch, length, width = hidden.shape
    vocabulary, devices = len(unembedding), parts(PARTS)
    part = -(-vocabulary // devices)
    rest = part * devices - vocabulary
    rows, axes = split(ROWS, batch), split(PARTS, part * devices)

    def of_device(hidden: Array, table: Array, targets: Array | None) -> UnembedMoments:
        if not rest:
            return own(hidden, table, targets=targets)
        first = jax.lax.axis_index(axes) * part
        cut = functools.partial(jax.lax.dynamic_slice_in_dim, table)
        return own(hidden, cut(first, part - rest), targets=targets, rest=cut(first + part - rest, rest))

    own = functools.partial(unembed_moments, keep_logits=keep_logits, axis_name=axes, **options)
    of_group, of_row = PartitionSpec(None, rows), PartitionSpec(rows)
    of_logits = PartitionSpec(rows, axes)
    out: Any = UnembedMoments(*cast(Any, (of_group, of_row, of_group, of_group, of_row, of_row, of_logits)))
    of_table = PartitionSpec(None if rest else axes)
    call = mapped(of_device, (of_group, of_table, of_row), out)
    flat = hidden.reshape(groups, batch * length, width)
    return call(flat, unembedding, None if targets is None else targets.reshape(-1))


def largest_logits(logits: Float[Array, "B T V"], count: int) -> tuple[Float[Array, "B T K"], Int[Array, "B T K"]]:
    """The largest logits and their tokens, the lowest token among equals: those of each device first."""
    rows, axes = split(ROWS, len(logits)), split(PARTS, logits.shape[-1])
    if axes is None:
        return jax.lax.top_k(logits, count)

    def of_device(own: Array) -> tuple[Array, Array]:
        values, tokens = jax.lax.top_k(own, min(count, own.shape[-1]))
        tokens += jax.lax.axis_index(axes) * own.shape[-1]
        values, tokens = jax.lax.all_gather((values, tokens), axes, axis=-1, tiled=True)
        values, places = jax.lax.top_k(values, count)
        return values, jnp.take_along_axis(tokens, places, axis=-1)

    return mapped(of_device, (PartitionSpec(rows, None, axes),), PartitionSpec(rows))(logits)
