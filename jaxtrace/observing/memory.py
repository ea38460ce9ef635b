"""Memory in use by this process and its devices."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import jax

STATM = Path("/proc/self/statm")


def memory_in_use() -> dict[str, int]:
    """Return the bytes in use: "process", and "device_N" for each device that reports its memory."""
    sizes = {"process": resident_bytes()}
    for device in jax.local_devices():
        if (stats := device.memory_stats()) is not None:
            sizes[f"device_{device.id}"] = stats["bytes_in_use"]
    return sizes


def resident_bytes() -> int:
    """Return the resident bytes of this process (its peak on systems without /proc)."""
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Return the peak of the process's resident bytes; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
