"""Slices of accelerators that a plan can be made for: published rates, and devices without the hardware."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.experimental import topologies

from jaxtrace.errors import ConfigError

GIB = 2**30
HOP = 1e-6  # seconds to a neighbouring chip, whatever the bytes: https://jax-ml.github.io/scaling-book/sharding
MOST_CPUS = 1024  # devices, of which JAX makes thousands in a second
ENVIRONMENT = {  # libtpu reads it when it is loaded
    "TPU_SKIP_MDS_QUERY": "1",  # no query of a metadata server
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # other processes may have it loaded
    "TPU_ACCELERATOR_TYPE": "v5e-4",  # libtpu warns without these two; neither decides what it compiles for
    "TPU_WORKER_HOSTNAMES": "localhost",
}


@dataclass(frozen=True)
class Chip:
    """A kind of chip, by its maker's figures.

    Attributes:
      name: first part of the names of its topologies.
      memory: bytes of a chip's memory.
      usable: bytes of that memory that the compiler grants to programs.
      bandwidth: bytes per second between memory and chip; None if unpublished.
      flops: bfloat16 operations per second (a multiply-add is two); None if unpublished.
      devices: JAX devices per chip; each has an equal part of memory and rates.
      shapes: number of chips → layout of the slice.
      options: options of libtpu besides the shape.
      link: bytes per second of a link to a neighbour, one way; None if unpublished.
    """

    name: str
    memory: float
    usable: float
    bandwidth: float | None
    flops: float | None
    devices: int = 1
    shapes: dict[int, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    link: float | None = None

    def collective_seconds(self, devices: int, size: float) -> float | None:
        """Return the least seconds of a collective among devices of a slice, whose result has `size` bytes on each.

        The farthest chips are half of each side of the slice apart, and a chip has two links along a side of more than
        two chips. A number of chips without a shape is a ring. None without a published rate of links.
        """
        if self.link is None:
            return None
        chips = max(devices // self.devices, 1)
        sides = [int(side) for side in self.shapes.get(chips, str(chips)).split("x")]
        links = sum(min(side - 1, 2) for side in sides)
        return max(HOP * sum(side // 2 for side in sides), size / (self.link * links)) if links else 0.0


@dataclass(frozen=True)
class Topology:
    """A slice of chips of one kind.

    Attributes:
      name: name, such as "v5e-16".
      shape: layout, such as "4x4"; empty for CPUs.
      platform: "tpu" or "cpu".
    """

    name: str
    chip: Chip
    chips: int
    shape: str
    platform: str

    @property
    def usable(self) -> int:
        """Bytes of each device's memory that the compiler grants to programs."""
        return int(self.chip.usable / self.chip.devices)

    def devices(self) -> Sequence[Any]:
        """Return the devices to compile for; CPU devices are this process's own.

        Raises:
          ConfigError: libtpu is not installed, or this process has fewer CPU devices.
        """
        return _cpus(self.chips) if self.platform == "cpu" else _tpus(self)


_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBES = {1: "1x1x1", 4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}

# Memory, bandwidth and operations per chip: Google Cloud's page on each TPU version (System architecture).
# `link`: the table of https://jax-ml.github.io/scaling-book/tpus.
# `usable`: the available HBM that libtpu 0.0.42 and 0.0.50 name when a program asks for more.
CHIPS = (
    Chip("v4", 32 * GIB, 30.75 * GIB, 1228e9, 275e12, 1, _CUBES, {"chip_config_name": "megacore"}, link=45e9),
    Chip("v5e", 16 * GIB, 15.75 * GIB, 819e9, 197e12, 1, _FLAT, link=45e9),
    Chip("v5p", 95 * GIB, 95.74 * GIB, 2765e9, 459e12, 1, _CUBES, link=90e9),
    Chip("v6e", 32 * GIB, 31.25 * GIB, 1640e9, 918e12, 1, _FLAT, link=90e9),
    Chip("7x", 192 * GIB, 189.5 * GIB, 7380e9, 2307e12, 2, _CUBES, link=90e9),
)


def find_topology(name: str) -> Topology:
    """Return the slice of a name: kind and number of chips, such as "v5e-16", or "cpu-8".

    Raises:
      ConfigError: no slice has that name; the message lists the known ones.
    """
    kind, _, count = name.partition("-")
    chips = int(count) if re.fullmatch("[1-9][0-9]{0,4}", count) else 0
    if kind == "cpu" and 1 <= chips <= MOST_CPUS:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / chips
        return Topology(name, Chip("cpu", memory, memory, None, None), chips, "", "cpu")
    chip = next((chip for chip in CHIPS if chip.name == kind), None)
    shape = chip and chip.shapes.get(chips)
    if chip is None or shape is None:
        known, sizes = ", ".join(chip.name for chip in CHIPS), ", ".join(f"-{chips}" for chips in CHIPS[0].shapes)
        raise ConfigError(
            f"topology {name!r:.60}: is unknown; choose one of {known} with {sizes} (chips), and cpu-1 to "
            f"cpu-{MOST_CPUS}"
        )
    return Topology(name, chip, chips, shape, "tpu")


def larger(topology: Topology) -> list[Topology]:
    """Return the slices with more chips of the same kind, the smallest first."""
    chip = topology.chip
    return [find_topology(f"{chip.name}-{chips}") for chips in chip.shapes if chips > topology.chips]


def _tpus(topology: Topology) -> Sequence[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            f"topology {topology.name!r}: the TPU compiler is not installed; pip install libtpu (it needs no TPU)"
        )
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    options: dict[str, Any] = {**topology.chip.options}
    if topology.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    name = {"7x": "tpu7x"}.get(topology.chip.name, topology.chip.name)
    return topologies.get_topology_desc(f"{name}:{topology.shape}", platform="tpu", **options).devices


def _cpus(count: int) -> Sequence[Any]:
    config: Any = jax.config
    with contextlib.suppress(RuntimeError):  # raised once the process has its devices
        config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise ConfigError(
            f"topology 'cpu-{count}': this process has {len(devices)} CPU devices; plan in a new process, or "
            f"start it with XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        )
    return devices[:count]
