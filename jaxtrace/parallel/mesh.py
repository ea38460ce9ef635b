"""Meshes of devices: built from sizes or from text, and fitted to a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from jaxtrace.errors import ConfigError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.on_mesh import MODEL_AXES
from jaxtrace.settings.mesh import mesh_sizes

COPIES = MODEL_AXES[-1]  # part of the model axis along which devices hold the same key/value head


def mesh(*, data: int = 1, model: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Build a mesh of the first devices.

    Args:
      data: number of parts into which the rows of a batch are split.
      model: number of parts into which heads, feed-forward and vocabulary are split.
      devices: devices to choose from; None for all that JAX sees.

    Raises:
      ConfigError: a size is below 1, or there are too few devices.
    """
    sizes = {"data": data, "model": model}
    if not all(type(size) is int and size >= 1 for size in sizes.values()):
        raise ConfigError(f"mesh {mesh_text(sizes)}: a size is no whole number of at least 1; give such sizes")
    return _build(sizes, devices)


def make_mesh(text: str, devices: Sequence[Any] | None = None) -> Mesh:
    """Build a mesh of the first devices from text.

    Args:
      text: names and sizes of the mesh's axes, such as "data=2,model=4".
      devices: devices to choose from; None for all that JAX sees.

    Raises:
      ConfigError: the text is malformed, names an unknown axis, or there are too few devices.
    """
    return _build(mesh_sizes(text), devices)


def fit_mesh(mesh: Mesh, config: DecoderConfig) -> Mesh:
    """Return the mesh on which a model's parameters and states live.

    If the model axis has more devices than there are key/value heads, it is cut in two. These heads are split over the
    part named "model", and devices along "copies" hold the same head; everything else is split over both.

    Raises:
      ConfigError: the mesh's model axis does not divide the model.
    """
    sizes = dict(mesh.shape)
    parts = sizes.get("model", 1) * sizes.pop(COPIES, 1)
    if not divides(parts, config):
        units = (f"{' or '.join(map(str, sorted(counts)))} {name}" for name, counts in _units(config).items())
        possible = [n for n in range(1, config.num_heads + 1) if divides(n, config)]
        nets = sorted({kind.delta_net.key_heads for kind in config.pattern if kind.delta_net is not None})
        of_nets = f", {' or '.join(map(str, nets))} key heads of delta nets" if nets else ""
        raise ConfigError(
            f"mesh {mesh_text(sizes | {'model': parts})}: {parts} parts do not divide {config.num_heads} heads "
            f"({config.size_text('kv_heads')} key/value heads{of_nets}) and {' and '.join(units)}; "
            f"model may be {', '.join(map(str, possible))}"
        )
    copies = max(parts // heads for heads in _shared_heads(parts, config) | {parts})
    if copies == mesh.shape.get(COPIES, 1):
        return mesh
    axes: dict[str, int] = {}
    for name, size in sizes.items():
        axes |= {"model": parts // copies, COPIES: copies} if name == "model" else {name: size}
    return Mesh(mesh.devices.reshape(tuple(axes.values())), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def divides(parts: int, config: DecoderConfig) -> bool:
    """Return True if a model splits into equal parts, each with whole key/value heads or one shared head.

    A mesh has one number of copies, so all kinds of layers that share heads must have the same number of them.
    """
    shared = _shared_heads(parts, config)
    return (
        config.num_heads % parts == 0
        and not any(count % parts for counts in _units(config).values() for count in counts)
        and len(shared) <= 1
        and all(parts % heads == 0 for heads in shared)
    )


def _units(config: DecoderConfig) -> dict[str, set[int]]:
    """Return the numbers of experts and of feed-forward units outside them, which a mesh splits, by their name."""
    units: dict[str, set[int]] = {}
    for size in config.sizes:
        experts = size.experts
        if experts is not None:
            units.setdefault("experts", set()).add(experts.number)
        if width := size.feed_forward if experts is None or experts.beside_dense else experts.shared:
            units.setdefault("feed-forward units", set()).add(width)
    return units


def kv_head_counts(config: DecoderConfig) -> set[int]:
    """Return the numbers of key/value heads of all kinds of layers: in a delta net, its key heads."""
    sized = zip(config.pattern, config.sizes, strict=True)
    return {size.kv_heads if kind.delta_net is None else kind.delta_net.key_heads for kind, size in sized}


def _shared_heads(parts: int, config: DecoderConfig) -> set[int]:
    """Return the numbers of key/value heads, of all kinds of layers, that several parts must share."""
    return {heads for heads in kv_head_counts(config) if heads % parts}


def mesh_text(sizes: dict[str, int]) -> str:
    """Format axis sizes as `make_mesh` reads them."""
    return ",".join(f"{name}={size}" for name, size in sizes.items())


def _build(sizes: dict[str, int], devices: Sequence[Any] | None) -> Mesh:
    devices = jax.devices() if devices is None else devices
    count = math.prod(sizes.values())
    if count > len(devices):
        raise ConfigError(
            f"mesh {mesh_text(sizes)!r}: needs {count} devices, and there are {len(devices)}; make it smaller"
        )
    types = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=devices[:count])
