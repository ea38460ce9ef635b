"""Timing of several variants against each other on a machine with other load, and work in new processes."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PAUSE = 0.2  # seconds between calls: idle threads of the previous library stop spinning


@dataclass(frozen=True)
class CallTimes:
    """Times of one variant.

    Attributes:
      seconds: time of each call after the warm-up.
      result: result of the last call.
    """

    seconds: list[float]
    result: Any

    @property
    def median(self) -> float:
        """Median time of a call in seconds."""
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        """Shortest time of a call in seconds."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """(slowest − fastest) / median."""
        return (max(self.seconds) - min(self.seconds)) / self.median


def interleave(
    variants: Mapping[str, Callable[[], Any]], repeats: int, pause: float | None = None
) -> dict[str, CallTimes]:
    """Call the variants in turn, A B C A B C …, so that a slow minute of the machine slows all of them.

    The first round is the warm-up (compilation, first use of the memory) and is not counted. Between calls pass `pause`
    seconds; None for PAUSE.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    results: dict[str, Any] = {}
    for repeat in range(repeats + 1):
        for name, call in variants.items():
            results.pop(name, None)
            gc.collect()
            time.sleep(PAUSE if pause is None else pause)
            began = time.perf_counter()
            results[name] = call()
            took = time.perf_counter() - began
            say(f"{'warm-up' if repeat == 0 else f'{repeat}/{repeats}'}  {name}: {took:.3f} s")
            if repeat:
                seconds[name].append(took)
    return {name: CallTimes(seconds[name], results[name]) for name in variants}


def run_in_new_process(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run `python -m module` with these arguments, and return the JSON on the last line of its stdout.

    Args:
      module: module to run.
      arguments: its arguments.
      environment: environment variables to add to this process's own.

    Raises:
      SystemExit: the process failed.
    """
    command, variables = [sys.executable, "-m", module, *arguments], {**os.environ, **(environment or {})}
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=variables)
    if process.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)}: exit status is {process.returncode}; see the messages above")
    return json.loads(process.stdout.splitlines()[-1])


def say(line: str) -> None:
    """Print a line of progress to stderr."""
    print(line, file=sys.stderr, flush=True)
