"""The compile cache on disk, a count of compilations, and compilation in threads."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

import jax

LEAST_SECONDS = 0.1  # compile time below which a program is not stored
COMPILED = "/jax/core/compile/backend_compile_duration"
STAGES = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration", COMPILED)
FROM_CACHE = "/jax/compilation_cache/cache_hits"


@dataclass
class Compilations:
    """Compilations during a block of code.

    Attributes:
      programs: number of programs, cached ones included.
      cached: number of programs read from the cache.
    """

    programs: int = 0
    cached: int = 0
    _spans: list[tuple[float, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Time in which at least one program was traced, lowered or compiled."""
        return sum(end - start for start, end in self._spans)

    def add_span(self, start: float, end: float) -> None:
        """Add the time of a stage; stages overlap where programs compile in threads or a trace is inside another."""
        apart = [span for span in self._spans if span[1] < start or end < span[0]]
        touching = [span for span in self._spans if span not in apart]
        starts, ends = zip((start, end), *touching, strict=True)
        self._spans = [*apart, (min(starts), max(ends))]

    def as_json(self) -> dict[str, float]:
        """Return the numbers that a run stores."""
        return {"programs": self.programs, "cached": self.cached, "seconds": round(self.seconds, 3)}

    def __str__(self) -> str:
        cached = f" ({self.cached} from the cache)" if self.cached else ""
        return f"compiled {self.programs} program{'s' * (self.programs != 1)} in {self.seconds:.1f} s{cached}"


@contextmanager
def counted(count: Compilations | None = None) -> Iterator[Compilations]:
    """Count this process's compilations in a block.

    Args:
      count: count to continue; None for a new one.

    Yields:
      The count, which changes during the block.
    """
    count, lock = Compilations() if count is None else count, threading.Lock()

    def on_duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event in STAGES:
            end = time.monotonic()
            with lock:
                count.programs += event == COMPILED
                count.add_span(end - duration_secs, end)

    def on_event(event: str, **_: str | int) -> None:
        count.cached += event == FROM_CACHE

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)


_THREADS = ThreadPoolExecutor(2, "compile")  # decode and one prefill: XLA splits a program over cores itself
_LOCKS: dict[Any, threading.Lock] = defaultdict(threading.Lock)
_STARTED: WeakSet[Future[None]] = WeakSet()


def compile_in_thread(program: Any, *arguments: Any, **static: Any) -> Future[None]:
    """Trace and lower a program here, and compile it in a thread.

    Args:
      program: jitted function. Calls with such arguments use the compiled program; one that does not wait for the
        result compiles another.
      arguments: arrays, or their shapes; devices must be JAX's choice in both.
      static: keyword arguments.
    """
    lowered = program.lower(*arguments, **static)

    def compiled() -> None:
        with _LOCKS[program]:  # the same program is compiled once
            lowered.compile()

    future = _THREADS.submit(compiled)
    _STARTED.add(future)
    return future


def is_compiling() -> bool:
    """Return whether a thread compiles a program, for which Python would wait at its end."""
    return any(not future.done() for future in _STARTED)


def use_cache() -> None:
    """Keep compiled programs on disk for the next process.

    The cache is $JAXTRACE_CACHE, or jaxtrace/ in the user's cache directory ($XDG_CACHE_HOME or ~/.cache). A cache that
    JAX has already (JAX_COMPILATION_CACHE_DIR) stays unchanged. There is no cache if JAX_ENABLE_COMPILATION_CACHE is 0
    or the directory cannot be written.
    """
    config: Any = jax.config
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return
    try:
        directory = _directory()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home directory
        return
    if os.access(directory, os.W_OK):
        config.update("jax_compilation_cache_dir", str(directory))
        config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)


def _directory() -> Path:
    if directory := os.environ.get("JAXTRACE_CACHE"):
        return Path(directory)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "jaxtrace"
