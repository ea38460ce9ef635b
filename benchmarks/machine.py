"""Description of the machine that a benchmark runs on, with its measured memory bandwidth and arithmetic."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import jax

from jaxtrace.planning.machine import bandwidth, product_rate


@dataclass(frozen=True)
class MeasuredMachine:
    """Description and measured rates of a machine.

    Attributes:
      description: processor or accelerator, memory and versions.
      bandwidth: bytes per second of a triad over arrays larger than most caches.
      flops: float32 operations per second of a square matrix product.
    """

    description: str
    bandwidth: float
    flops: float

    @property
    def line(self) -> str:
        """Description and rates in one line, for the top of a table."""
        return (
            f"Machine: {self.description}; measured: triad {self.bandwidth / 1e9:.1f} GB/s, "
            f"float32 matrix product {self.flops / 1e9:.0f} GFLOP/s."
        )


@functools.lru_cache
def this_machine() -> MeasuredMachine:
    """Describe and measure this machine in a few seconds."""
    return MeasuredMachine(description(), bandwidth(), product_rate("float32"))


def description() -> str:
    """Return the processor or accelerator, memory and versions of this machine."""
    names = ("jax", "torch", "transformers")
    versions = ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in names)])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB, {versions}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    host = names[0].split(":", 1)[1].strip() if names else platform.processor() or platform.machine()
    return host if jax.default_backend() == "cpu" else f"{jax.devices()[0].device_kind} beside {host}"


def _version(package: str) -> str:
    return version(package) if find_spec(package) else "absent"


if __name__ == "__main__":
    print(this_machine().line)
