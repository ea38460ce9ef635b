"""Timing several ways of doing one thing against each other, on a machine that is never quite quiet."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PAUSE = 0.2  # seconds between calls: idle threads of the library that ran before stop spinning


@dataclass(frozen=True)
class Timed:
    """Times of one variant.

    Attributes:
      seconds: of each call, the warm-up left out.
      result: what the last call returned.
    """

    seconds: list[float]
    result: Any

    @property
    def median(self) -> float:
        """Seconds of the middle call."""
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        """Seconds of the fastest call."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """(slowest − fastest) / median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def interleave(variants: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timed]:
    """Calls the variants in turn, A B C A B C …, so that a slow minute of the machine slows all of them.

    The first round is the warm-up (compilation, first use of the memory) and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    results: dict[str, Any] = {}
    for repeat in range(repeats + 1):
        for name, call in variants.items():
            results.pop(name, None)
            gc.collect()
            time.sleep(PAUSE)
            began = time.perf_counter()
            results[name] = call()
            took = time.perf_counter() - began
            say(f"{'warm-up' if repeat == 0 else f'{repeat}/{repeats}'}  {name}: {took:.3f} s")
            if repeat:
                seconds[name].append(took)
    return {name: Timed(seconds[name], results[name]) for name in variants}


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)
