"""Assembles parameters in the requested layout and sharding from any reader of their parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, abstract_params
from jaxtrace.models.families.weights import ParamPath
from jaxtrace.models.stacked import StackedLayers

PART = 2**30  # bytes that a reader may return at once; a larger parameter is read by itself

# (path of a subtree, its shapes, dtypes and shardings) → its arrays
Read = Callable[[ParamPath, Any], Any]


def default_sharding() -> Sharding:
    """Return the sharding of parameters on JAX's default device."""
    return jnp.zeros(()).sharding


def assemble(config: DecoderConfig, read: Read, dtype: Any, shardings: Params | None, stacked: bool) -> Params:
    """Read parameters straight into their shardings; besides them the devices hold at most one more layer.

    Args:
      config: config of the decoder.
      read: reader of one block, or of one entry outside the blocks.
      dtype: dtype of the parameters.
      shardings: sharding of every parameter, in the requested layout; None for the default device.
      stacked: True to stack the layers for a scan.
    """
    shapes = abstract_params(config, dtype=dtype)
    if shardings is None:
        default = default_sharding()
        shardings = jax.tree.map(lambda _: default, abstract_params(config, stacked=stacked))
    assert shardings is not None
    block_shapes, block_shardings = shapes.pop("layers"), shardings["layers"]

    def read_part(path: ParamPath, shape: Any, sharding: Any) -> Any:
        entries = sum(leaf.size for leaf in jax.tree.leaves(shape))
        if isinstance(shape, dict) and entries * jnp.dtype(dtype).itemsize > PART:
            return {name: read_part((*path, name), shape[name], sharding[name]) for name in shape}
        part = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shape, sharding)
        return jax.block_until_ready(read(path, part))  # otherwise several parts would wait in host memory

    def read_layer(i: int, sharding: Any) -> Any:
        return read_part(("layers", i), block_shapes[i], sharding)

    params = {name: read_part((name,), shape, shardings[name]) for name, shape in shapes.items()}
    if not stacked:
        return {**params, "layers": [read_layer(i, block_shardings[i]) for i in range(config.num_layers)]}
    period, end = len(block_shardings.repeated), config.num_layers - len(block_shardings.tail)
    repeated = [
        _stack(read_layer, range(first, end, period), block_shapes[first], block_shardings.repeated[first])
        for first in range(period)
    ]
    unstacked = [read_layer(end + i, sharding) for i, sharding in enumerate(block_shardings.tail)]
    return {**params, "layers": StackedLayers(repeated, unstacked)}


def _stack(read_layer: Callable[[int, Any], Any], layers: range, shapes: Any, shardings: Any) -> Any:
    """Stack layers on a leading axis, each written in place after it is read."""

    def zeros() -> Any:
        return jax.tree.map(lambda x: jnp.zeros((len(layers), *x.shape), x.dtype), shapes)

    def write(stack: Any, new: Any, i: int) -> Any:
        return jax.tree.map(lambda xs, x: jax.lax.dynamic_update_index_in_dim(xs, x, i, 0), stack, new)

    stack = jax.jit(zeros, out_shardings=shardings)()
    write_in_place = jax.jit(write, donate_argnums=0, out_shardings=shardings)
    layer_shardings = jax.tree.map(_layer_sharding, shardings)
    for i, layer in enumerate(layers):
        stack = jax.block_until_ready(write_in_place(stack, read_layer(layer, layer_shardings), i))
    return stack


def _layer_sharding(stacked: Sharding) -> Sharding:
    """Return the sharding of one layer of a stack."""
    if isinstance(stacked, NamedSharding):
        return NamedSharding(stacked.mesh, PartitionSpec(*stacked.spec[1:]))
    return stacked
