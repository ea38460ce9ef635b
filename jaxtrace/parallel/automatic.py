"""The mesh that a model is loaded onto: the one that is named, or one that is chosen for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jaxtrace.errors import ConfigError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import abstract_params
from jaxtrace.parallel.mesh import divides, fitted, make_mesh, mesh
from jaxtrace.parallel.sharding import param_shardings

AUTO = "auto"
SHARE = 0.6  # of a device's memory that weights may take; caches, traces and what the steps need take the rest


def chosen_mesh(mesh: Mesh | str | None, config: DecoderConfig, itemsize: int) -> Mesh | None:
    """The mesh that is meant, fitted to a model whose parameters have so many bytes each.

    Args:
      mesh: or its text, such as "data=2,model=4"; "auto" for that of `automatic_mesh`; None for the default device.
      config: of the decoder.
      itemsize: bytes of a parameter.

    Raises:
      ConfigError: the text cannot be understood, there are too few devices, the mesh does not divide the model, or some
        process has no device in it.
    """
    if mesh == AUTO:
        mesh = automatic_mesh(config, itemsize)
    found = make_mesh(mesh) if isinstance(mesh, str) else mesh
    there = set() if found is None else {device.process_index for device in found.devices.flat}
    if jax.process_count() > 1 and len(there) < jax.process_count():
        raise ConfigError(
            f"mesh {mesh!r}: leaves some of the {jax.process_count()} processes without a device; "
            f"make it of all {jax.device_count()}"
        )
    return None if found is None else fitted(found, config)


def automatic_mesh(
    config: DecoderConfig,
    itemsize: int,
    devices: Sequence[Any] | None = None,
    memory: int | None = None,
) -> Mesh | None:
    """A mesh of all devices for a model; None where there is but one.

    The parameters are split over the fewest devices whose memory holds them, or over the most that can share them where
    that is not enough; the rows of a batch are split over the rest. Where a device's memory is not known (the devices
    of a CPU share it), they are split over the most devices that have key/value heads of their own.

    Args:
      config: of the decoder.
      itemsize: bytes of a parameter.
      devices: None for all that JAX sees.
      memory: of each device in bytes; None for what it says of itself.
    """
    devices = jax.devices() if devices is None else devices
    if len(devices) == 1:
        return None
    memory = memory_of(devices[0]) if memory is None else memory
    possible = [n for n in range(1, len(devices) + 1) if len(devices) % n == 0 and divides(n, config)]
    meshes = [mesh(data=len(devices) // n, model=n, devices=devices) for n in possible]
    if memory is None:
        return next(found for found in reversed(meshes) if config.kv_heads % found.shape["model"] == 0)
    fitting = (found for found in meshes if weight_bytes(config, found, itemsize) <= SHARE * memory)
    return next(fitting, meshes[-1])


def weight_bytes(config: DecoderConfig, mesh: Mesh, itemsize: int) -> int:
    """Bytes of parameters on each device of a mesh."""
    parts = jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(where.shard_shape(x.shape), x.dtype),
        abstract_params(config),
        param_shardings(config, mesh),
    )
    return itemsize * sum(part.size for part in jax.tree.leaves(parts))


def memory_of(device: Any) -> int | None:
    """Bytes of memory of a device, or None where it does not say."""
    try:
        return (device.memory_stats() or {}).get("bytes_limit")
    except (NotImplementedError, jax.errors.JaxRuntimeError):  # a device that is only compiled for
        return None
