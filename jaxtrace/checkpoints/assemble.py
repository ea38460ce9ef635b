"""Parameters in the layout and on the devices that are asked for, from whatever can read a part of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, abstract_params
from jaxtrace.models.families.weights import ParamPath
from jaxtrace.models.stacked import Stacked

# (place, the tree there as shapes, dtypes and shardings) → the tree of arrays
Read = Callable[[ParamPath, Any], Any]


def assemble(config: DecoderConfig, read: Read, dtype: Any, shardings: Params | None, stacked: bool) -> Params:
    """Parameters, each read straight into its sharding; beside them the devices hold one more layer at most.

    Args:
      config: of the decoder.
      read: gives one block, or what has one name outside the blocks.
      dtype: of the parameters.
      shardings: of every parameter, in the layout asked for; None for the default device.
      stacked: layers stacked for a scan.
    """
    shapes = abstract_params(config)
    if shardings is None:
        here = jnp.zeros(()).sharding
        wanted: Params = jax.tree.map(lambda _: here, abstract_params(config, stacked=stacked))
    else:
        wanted = shardings
    blocks, of = shapes.pop("layers"), wanted["layers"]

    def part(path: ParamPath, shape: Any, sharding: Any) -> Any:
        wanted = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, dtype, sharding=s), shape, sharding)
        return jax.block_until_ready(read(path, wanted))  # or several would wait in host memory for their transfer

    def layer(i: int, sharding: Any) -> Any:
        return part(("layers", i), blocks[i], sharding)

    params = {name: part((name,), shape, wanted[name]) for name, shape in shapes.items()}
    if not stacked:
        return {**params, "layers": [layer(i, of[i]) for i in range(config.layers)]}
    period, whole = len(of.repeated), config.layers - len(of.rest)
    repeated = [_stack(layer, range(p, whole, period), blocks[p], dtype, of.repeated[p]) for p in range(period)]
    rest = [layer(whole + i, sharding) for i, sharding in enumerate(of.rest)]
    return {**params, "layers": Stacked(repeated, rest)}


def _stack(layer: Callable[[int, Any], Any], numbers: range, shapes: Any, dtype: Any, shardings: Any) -> Any:
    """Layers on a leading axis, each written in place as it is read."""

    def zeros() -> Any:
        return jax.tree.map(lambda x: jnp.zeros((len(numbers), *x.shape), dtype), shapes)

    def write(stack: Any, new: Any, i: int) -> Any:
        return jax.tree.map(lambda xs, x: jax.lax.dynamic_update_index_in_dim(xs, x, i, 0), stack, new)

    stack = jax.jit(zeros, out_shardings=shardings)()
    write_in_place = jax.jit(write, donate_argnums=0, out_shardings=shardings)
    one = jax.tree.map(_of_one, shardings)
    for i, number in enumerate(numbers):
        stack = jax.block_until_ready(write_in_place(stack, layer(number, one), i))
    return stack


def _of_one(sharding: Sharding) -> Sharding:
    """The sharding of one layer, from that of a stack of them."""
    return (
        NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
        if isinstance(sharding, NamedSharding)
        else sharding
    )
