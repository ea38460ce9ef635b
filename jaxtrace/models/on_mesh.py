"""Kernels on a mesh: each device computes its own rows and heads, under `jax.shard_map`.

The mesh is the one that `jax.set_mesh` has set; without one a function is called as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

ROWS, PARTS = "data", "model"  # the mesh axes that split a batch's rows, and heads or the vocabulary


def split(axis: str, *sizes: int) -> str | None:
    """The mesh axis if the mesh has it and it divides the sizes, else None."""
    parts = _shape().get(axis, 1)
    return axis if parts > 1 and all(size % parts == 0 for size in sizes) else None


def whole_heads(kv_heads: int) -> bool:
    """Whether every device has whole key/value heads: kernels need them, XLA's partitioner does not."""
    return kv_heads % _shape().get(PARTS, 1) == 0


def mapped(function: Callable[..., Any], in_specs: tuple[PartitionSpec, ...], out_specs: Any) -> Callable[..., Any]:
    """`function` of each device's parts of its arguments."""
    if not _shape():
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _shape() -> dict[str, int]:
    return dict(jax.sharding.get_abstract_mesh().shape)
