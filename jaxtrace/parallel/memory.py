"""Memory of devices, and errors of weights that do not fit it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from jaxtrace.memory import check_fits, format_bytes, free_memory, memory_errors
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import parameter_count


def device_memory(device: Any) -> int | None:
    """Return the memory of a device in bytes, or None if the device does not report it."""
    try:
        return (device.memory_stats() or {}).get("bytes_limit")
    except (NotImplementedError, jax.errors.JaxRuntimeError):  # a compile-only device of a topology
        return None


def memory_limit() -> int | None:
    """Return the bytes that arrays of this process can take: free memory of a CPU, all memory of accelerators."""
    if jax.default_backend() == "cpu":
        return free_memory()
    sizes = [device_memory(device) for device in jax.local_devices()]
    return None if None in sizes else sum(size for size in sizes if size is not None)


@contextmanager
def loading_weights(name: str, config: DecoderConfig, dtype: Any) -> Iterator[None]:
    """Refuse weights that cannot fit before they are read, and explain failures to allocate them.

    XLA ends the process for arrays whose size is no int64, and Linux for memory that is promised but not there.

    Raises:
      OutOfMemoryError: the weights do not fit.
    """
    weights = parameter_count(config) * np.dtype(dtype).itemsize

    def describe(asked: str) -> str:
        return (
            f"{name}: out of memory: the weights take {format_bytes(weights)} in {np.dtype(dtype).name}{asked}; "
            "choose a smaller dtype (--dtype), more devices (--mesh), or a smaller model"
        )

    check_fits(weights // jax.process_count(), memory_limit(), describe)
    with memory_errors(describe):
        yield
