"""How much memory is in use."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import jax

STATM = Path("/proc/self/statm")


def memory_in_use() -> dict[str, int]:
    """Bytes that this process has in memory (at its peak, where the system tells no more), and each of its devices."""
    found = {"process": resident_bytes()}
    for device in jax.local_devices():
        if (stats := device.memory_stats()) is not None:
            found[f"device_{device.id}"] = stats["bytes_in_use"]
    return found


def resident_bytes() -> int:
    """Bytes of this process that are in memory."""
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
