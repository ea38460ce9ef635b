"""Metrics of prompts that finish in any order, given out in the order of the prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
from jaxtyping import Bool

from jaxtrace.tracing.measure import StepTrace

Metrics = dict[str, np.ndarray]  # of one prompt: name → [steps, …]
OnProgress = Callable[[int, int, float], None]  # new prompts, new tokens, sum of their entropies


class Gathered:
    """The metrics of prompts 0, 1, … as they come in."""

    def __init__(self, on_progress: OnProgress):
        self._on_progress = on_progress
        self._parts: dict[int, list[Metrics]] = defaultdict(list)
        self._whole: dict[int, Metrics] = {}
        self._next = 0

    def add(
        self,
        trace: StepTrace,
        holders: Sequence[int | None],
        places: dict[int, tuple[slice | int, ...]],
        done: Bool[np.ndarray, " B"],
    ) -> Iterator[list[Metrics]]:
        """Takes a chunk of steps in, and gives out the prompts that are whole, as are all before them.

        Args:
          trace: of the chunk, on the host.
          holders: the prompt of each row.
          places: where a row's steps stand in the arrays of `trace`, of the rows that have some.
          done: which rows have come to their end.
        """
        metrics = {name: x for name, x in vars(trace).items() if x is not None}
        for row, place in places.items():
            prompt = cast(int, holders[row])
            self._parts[prompt].append({name: x[place] for name, x in metrics.items()})
            if done[row]:
                parts = self._parts.pop(prompt)
                self._whole[prompt] = {name: np.concatenate([part[name] for part in parts]) for name in metrics}
        self._report(metrics, places, done)
        if ready := self._ready():
            yield ready

    def _ready(self) -> list[Metrics]:
        ready = []
        while self._next in self._whole:
            ready.append(self._whole.pop(self._next))
            self._next += 1
        return ready

    def _report(
        self, metrics: Metrics, places: dict[int, tuple[slice | int, ...]], done: Bool[np.ndarray, " B"]
    ) -> None:
        entropy = metrics.get("entropy")
        tokens = sum(metrics["token"][place].size for place in places.values())
        finished = sum(bool(done[row]) for row in places)
        total = np.nan if entropy is None else sum(np.nansum(entropy[place]) for place in places.values())
        self._on_progress(finished, tokens, float(total))
