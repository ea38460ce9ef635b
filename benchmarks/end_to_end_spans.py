"""Spans of time in which a process does something, and each activity's share where they overlap."""

from __future__ import annotations

import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Spans:
    """Named spans of time since a process was started."""

    def __init__(self, began: float) -> None:
        """Take the time, as `time.time`, at which another process started this one."""
        self._began = began
        self._spans: list[tuple[str, float, float]] = []

    def add(self, name: str, start: float, end: float | None = None) -> None:
        """Add a span from `start` to `end`, as `time.time`; None for now."""
        self._spans.append((name, start, time.time() if end is None else end))

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Add the span of a block of code."""
        start = time.time()
        try:
            yield
        finally:
            self.add(name, start)

    def wrap(self, owner: Any, attribute: str, name: str, finish: Callable[[Any], Any] = lambda result: result) -> None:
        """Replace a function of a module or class by one that adds its span, `finish` of its result included."""
        function = getattr(owner, attribute)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.of(name):
                return finish(function(*args, **kwargs))

        setattr(owner, attribute, timed)

    def print_json(self, **numbers: Any) -> None:
        """Print the spans and some numbers as the last line of stdout."""
        print(json.dumps({"began": self._began, "spans": self._spans, **numbers}), flush=True)


def exclusive(spans: list[tuple[str, float, float]], began: float, ended: float, order: list[str]) -> dict[str, float]:
    """Return the seconds of each activity, and of "rest": every moment belongs to the first of `order` that runs.

    Args:
      spans: (name, start, end) of activities, which may overlap.
      began: start of the whole time.
      ended: its end.
      order: names of all activities.
    """
    events = [(start, name, 1) for name, start, _ in spans] + [(end, name, -1) for name, _, end in spans]
    seconds, running, now = dict.fromkeys([*order, "rest"], 0.0), Counter(), began
    for moment, name, change in sorted([*events, (ended, "", 0)]):
        current = next((each for each in order if running[each]), "rest")
        seconds[current] += min(moment, ended) - min(now, ended)
        now = moment
        running[name] += change
    return seconds
