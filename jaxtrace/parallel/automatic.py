"""Mesh of a model: the one that the user names, or one chosen from the model's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jaxtrace.errors import ConfigError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import abstract_params
from jaxtrace.parallel.memory import device_memory
from jaxtrace.parallel.mesh import divides, fit_mesh, kv_head_counts, make_mesh, mesh
from jaxtrace.parallel.sharding import param_shardings
from jaxtrace.settings.run import AUTO

WEIGHT_SHARE = 0.6  # share of a device's memory for weights; caches, traces and temporaries need the rest


def resolve_mesh(mesh: Mesh | str | None, config: DecoderConfig, itemsize: int) -> Mesh | None:
    """Return the mesh for a model, fitted to it; None for the default device.

    Args:
      mesh: mesh, or its text, such as "data=2,model=4"; "auto" for `automatic_mesh`; None for the default device.
      config: decoder's config.
      itemsize: size of a parameter in bytes.

    Raises:
      ConfigError: the text is malformed, there are too few devices, the mesh does not divide the model, or a process
        has no device in the mesh.
    """
    if mesh == AUTO:
        mesh = automatic_mesh(config, itemsize)
    built = make_mesh(mesh) if isinstance(mesh, str) else mesh
    processes = set() if built is None else {device.process_index for device in built.devices.flat}
    if jax.process_count() > 1 and len(processes) < jax.process_count():
        raise ConfigError(
            f"mesh {mesh!r}: some of the {jax.process_count()} processes have no device in it; "
            f"use all {jax.device_count()} devices"
        )
    return None if built is None else fit_mesh(built, config)


def automatic_mesh(
    config: DecoderConfig,
    itemsize: int,
    devices: Sequence[Any] | None = None,
    memory: int | None = None,
) -> Mesh | None:
    """Choose a mesh of all devices for a model; None for a single device.

    The parameters are split over the fewest devices whose memory holds them, or over as many as possible if no number
    suffices; the rows of a batch are split over the other axis. If a device's memory is unknown (CPU devices share it),
    the parameters are split over the most devices that have key/value heads of their own.

    Args:
      config: decoder's config.
      itemsize: size of a parameter in bytes.
      devices: devices to use; None for all that JAX sees.
      memory: memory of each device in bytes; None to ask the device.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) == 1:
        return None
    memory = device_memory(devices[0]) if memory is None else memory
    possible = [n for n in range(1, len(devices) + 1) if len(devices) % n == 0 and divides(n, config)]
    meshes = [mesh(data=len(devices) // n, model=n, devices=devices) for n in possible]
    if memory is None:
        heads = kv_head_counts(config)
        return next(each for each in reversed(meshes) if not any(n % each.shape["model"] for n in heads))
    large_enough = (each for each in meshes if weight_bytes(config, each, itemsize) <= WEIGHT_SHARE * memory)
    return next(large_enough, meshes[-1])


def weight_bytes(config: DecoderConfig, mesh: Mesh, itemsize: int) -> int:
    """Return the bytes of parameters on each device of a mesh."""
    sizes = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(sharding.shard_shape(x.shape), x.dtype).size,
        abstract_params(config),
        param_shardings(config, mesh),
    )
    return itemsize * sum(jax.tree.leaves(sizes))
