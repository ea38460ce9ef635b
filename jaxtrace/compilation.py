"""The compile cache on disk, and a count of compilations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
      seconds: time spent on tracing, lowering and compiling them.
    """

    programs: int = 0
    cached: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        cached = f" ({self.cached} from the cache)" if self.cached else ""
        return f"compiled {self.programs} program{'s' * (self.programs != 1)} in {self.seconds:.1f} s{cached}"


@contextmanager
def counted() -> Iterator[Compilations]:
    """Count this process's compilations in a block.

    Yields:
      The count, which changes during the block.
    """
    count = Compilations()

    def on_duration(event: str, duration_secs: float, **_: str | int) -> None:
        if event in STAGES:
            count.programs += event == COMPILED
            count.seconds += duration_secs

    def on_event(event: str, **_: str | int) -> None:
        count.cached += event == FROM_CACHE

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)


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
