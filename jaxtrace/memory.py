"""Memory: what is free on this machine, and errors that say what did not fit. Imports no JAX."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxtrace.errors import JaxtraceError, OutOfMemoryError

MEMINFO, STATM = Path("/proc/meminfo"), Path("/proc/self/statm")
GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}

# Words of XLA and NumPy for memory that is exhausted: "Out of memory allocating 4000 bytes", "Out of memory while
# trying to allocate 12.5GiB", "Failed to allocate request for 1.0GiB" (GPU), "Attempting to reserve 3.95G at the bottom
# of memory", "Used 21.95G of 15.48G hbm" (TPU), "Unable to allocate 7.11 PiB for an array".
EXHAUSTED = ("RESOURCE_EXHAUSTED", "Resource exhausted", "OUT_OF_MEMORY", "Out of memory", "out of memory", "bad_alloc")
REQUESTED = re.compile(r"(?:allocat|reserve|required|Used)[^\d(]{0,40}([\d.]+) ?(?:([KMGTPE])i?B?|B|bytes)\b")
RUNTIME_ERRORS = ("JaxRuntimeError", "XlaRuntimeError")

Describe = Callable[[str], str]  # ", and 4 GiB more was asked for", or "" → the line of an error


def format_bytes(count: float, digits: int = 4) -> str:
    """Return bytes with a binary unit, to significant digits."""
    sign, count = "−" * (count < 0), abs(count)
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{sign}{count:.{digits}g} {unit}"
        count /= 1024
    return f"{sign}{count:.{digits}g} GiB"


@contextmanager
def memory_errors(describe: Describe) -> Iterator[None]:
    """Turn failures to allocate, on the host or on a device, into OutOfMemoryError.

    Args:
      describe: function that returns the error's line: what did not fit, and what to lower. Its argument says how much
        was asked for, and is "" if the failure does not tell.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, JaxtraceError) or not is_out_of_memory(error):
            raise
        asked = requested_bytes(error)
        raise OutOfMemoryError(
            describe(f", and {format_bytes(asked)} was asked for at once" if asked else "")
        ) from error


def check_fits(needed: int, available: int | None, describe: Describe) -> None:
    """Raise OutOfMemoryError if more bytes are needed than are available; None for an unknown number."""
    if available is not None and needed > available:
        raise OutOfMemoryError(describe(f", and {format_bytes(available)} is free"))


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an error of Python, NumPy, XLA or the operating system that says that memory is exhausted."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error)
    if "Cannot allocate memory" in text:  # errors that other libraries make of ENOMEM
        return True
    return isinstance(error, MemoryError) or (
        type(error).__name__ in RUNTIME_ERRORS and any(words in text for words in EXHAUSTED)
    )


def requested_bytes(error: BaseException) -> int | None:
    """Return the bytes that a failed allocation asked for; None if its error does not tell."""
    match = REQUESTED.search(str(error))
    return int(float(match[1].rstrip(".")) * UNITS[match[2] or ""]) if match else None


def free_memory() -> int | None:
    """Return the bytes that this process can still take on this machine, swap included; None if that is unknown."""
    limits: list[int] = []
    with suppress(OSError, KeyError, ValueError):
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        limits.append(sum(int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "SwapFree")))
    for path in GROUP_LIMITS:
        with suppress(OSError, ValueError):  # ValueError: "max"
            limits.append(int(Path(path).read_text()))
    with suppress(ImportError, OSError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            limits.append(limit - int(STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=None)
