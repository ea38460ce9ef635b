"""The machine that a benchmark ran on, in a line, with what its memory and its arithmetic were measured to give."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import jax.numpy as jnp

TRIAD_ENTRIES = 1 << 27  # 512 MiB per float32 array, so that a triad touches 1.5 GiB
MATMUL_SIZE = 2048
ACCELERATOR_MATMUL_SIZE = 8192  # so that it is the product that takes the time


@dataclass(frozen=True)
class Machine:
    """Attributes:
    description: processor or accelerator, memory and versions.
    bandwidth: bytes per second of a triad over arrays larger than most caches.
    flops: float32 operations per second of a square matrix product.
    """

    description: str
    bandwidth: float
    flops: float

    @property
    def line(self) -> str:
        """Everything, for the top of a table."""
        return (
            f"Machine: {self.description}; measured: triad {self.bandwidth / 1e9:.1f} GB/s, "
            f"float32 matrix product {self.flops / 1e9:.0f} GFLOP/s."
        )


@functools.lru_cache
def this_machine() -> Machine:
    """Describes and measures this machine; takes a few seconds."""
    names = ("jax", "torch", "transformers")
    versions = ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in names)])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(
        f"{_processor()}, {cores} cores, {memory:.0f} GiB, {versions}", _bandwidth(), product_rate("float32")
    )


def _bandwidth() -> float:
    triad = jax.jit(lambda x, y: x + 3.0 * y)
    x, y = (jnp.full(TRIAD_ENTRIES, value, jnp.float32) for value in (1.0, 2.0))
    return 3 * x.nbytes / _fastest(lambda: triad(x, y).block_until_ready())


@functools.lru_cache
def product_rate(dtype: str) -> float:
    """Operations per second of a square matrix product; that of float32 in float32 throughout."""
    size = MATMUL_SIZE if jax.default_backend() == "cpu" else ACCELERATOR_MATMUL_SIZE
    product = jax.jit(functools.partial(jnp.matmul, precision="highest" if dtype == "float32" else None))
    x = jax.random.normal(jax.random.key(0), (size, size)).astype(dtype)
    return 2 * size**3 / _fastest(lambda: product(x, x).block_until_ready())


def _fastest(call: Callable[[], object], repeats: int = 7) -> float:
    call()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _processor() -> str:
    if jax.default_backend() != "cpu":
        return f"{jax.devices()[0].device_kind} beside {_host_processor()}"
    return _host_processor()


def _host_processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    print(this_machine().line)
