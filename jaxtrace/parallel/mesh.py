"""Meshes of devices: of given sizes, from a line of text, fitted to a model, or chosen for it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from jaxtrace.errors import ConfigError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.on_mesh import PARTS

AXES = ("data", "model")  # rows of a batch are split over the first, parameters over the second
COPIES = PARTS[-1]  # the part of the model axis along which devices hold the same key/value head


def mesh(*, data: int = 1, model: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of the first devices.

    Args:
      data: parts that rows of a batch are split into.
      model: parts that heads, feed-forward and vocabulary are split into.
      devices: to take them from; None for all that JAX sees.

    Raises:
      ConfigError: a size is below 1, or there are too few devices.
    """
    sizes = {"data": data, "model": model}
    if min(sizes.values()) < 1:
        raise ConfigError(f"mesh {written(sizes)}: sizes are 1 or more")
    return _of_first(sizes, devices)


def make_mesh(text: str, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of the first devices.

    Args:
      text: names and sizes of its axes, such as "data=2,model=4".
      devices: to take them from; None for all that JAX sees.

    Raises:
      ConfigError: the text is no such list, names another axis, or there are too few devices.
    """
    return _of_first(mesh_sizes(text), devices)


def mesh_sizes(text: str) -> dict[str, int]:
    """The axes of a mesh written like "data=2,model=4", and their sizes; raises ConfigError where it is not."""
    axes = [re.fullmatch(r"\s*([a-z_]+)\s*=\s*([1-9][0-9]*)\s*", part) for part in text.split(",")]
    found = [(axis[1], int(axis[2])) for axis in axes if axis]
    names = [name for name, _ in found]
    if len(found) < len(axes) or len(set(names)) < len(names) or not set(names) <= {*AXES}:
        raise ConfigError(f"mesh {text!r}: not sizes of {' and '.join(AXES)}; write it like 'data=2,model=4'")
    return dict(found)


def fitted(mesh: Mesh, config: DecoderConfig) -> Mesh:
    """The mesh as a model's parameters and states live on it.

    Where the model axis has more devices than there are key/value heads, it is cut in two: key/value heads are split
    over what stays "model", and devices along "copies" hold the same one; all else is split over both.

    Raises:
      ConfigError: its model axis does not divide the model.
    """
    sizes = dict(mesh.shape)
    parts = sizes.get("model", 1) * sizes.pop(COPIES, 1)
    if not divides(parts, config):
        possible = [n for n in range(1, config.heads + 1) if divides(n, config)]
        raise ConfigError(
            f"mesh {written(sizes | {'model': parts})}: {parts} parts do not divide {config.heads} heads "
            f"({config.kv_heads} of keys and values) and {config.feed_forward} feed-forward units; "
            f"model may be {', '.join(map(str, possible))}"
        )
    copies = max(1, parts // config.kv_heads)
    if copies == mesh.shape.get(COPIES, 1):
        return mesh
    axes: dict[str, int] = {}
    for name, size in sizes.items():
        axes |= {"model": parts // copies, COPIES: copies} if name == "model" else {name: size}
    return Mesh(mesh.devices.reshape(tuple(axes.values())), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def divides(parts: int, config: DecoderConfig) -> bool:
    """Whether each part has as many query heads and feed-forward units, and whole key/value heads or one they share."""
    alike = config.heads % parts == 0 and config.feed_forward % parts == 0
    return alike and (config.kv_heads % parts == 0 or parts % config.kv_heads == 0)


def written(sizes: dict[str, int]) -> str:
    """Sizes of a mesh's axes as `make_mesh` reads them."""
    return ",".join(f"{name}={size}" for name, size in sizes.items())


def _of_first(sizes: dict[str, int], devices: Sequence[Any] | None) -> Mesh:
    devices = jax.devices() if devices is None else devices
    wanted, there = math.prod(sizes.values()), len(devices)
    if wanted > there:
        raise ConfigError(f"mesh {written(sizes)!r}: needs {wanted} devices, and there are {there}; make it smaller")
    types = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=devices[:wanted])
