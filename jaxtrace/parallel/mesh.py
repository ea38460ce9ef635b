"""Meshes of devices, from a line of text."""

from __future__ import annotations

import math
import re

import jax
from jax.sharding import AxisType, Mesh

from jaxtrace.errors import ConfigError

AXES = ("data", "model")  # rows of a batch are split over the first, parameters over the second


def make_mesh(text: str) -> Mesh:
    """A mesh of the first devices.

    Args:
      text: names and sizes of its axes, such as "data=2,model=4".

    Raises:
      ConfigError: the text is no such list, names another axis, or there are too few devices.
    """
    axes = [re.fullmatch(r"\s*([a-z_]+)\s*=\s*([1-9][0-9]*)\s*", part) for part in text.split(",")]
    found = [(axis[1], int(axis[2])) for axis in axes if axis]
    names = [name for name, _ in found]
    if len(found) < len(axes) or len(set(names)) < len(names) or not set(names) <= {*AXES}:
        raise ConfigError(f"mesh {text!r}: not sizes of {' and '.join(AXES)}; write it like 'data=2,model=4'")
    sizes = [size for _, size in found]
    wanted, there = math.prod(sizes), jax.device_count()
    if wanted > there:
        raise ConfigError(f"mesh {text!r}: needs {wanted} devices, and there are {there}; make it smaller")
    devices = jax.devices()[:wanted]
    return jax.make_mesh(sizes, names, axis_types=(AxisType.Auto,) * len(names), devices=devices)
