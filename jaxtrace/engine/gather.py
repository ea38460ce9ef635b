"""Metrics of prompts that finish in any order, given out in the order of the prompts."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import numpy as np
from jaxtyping import Bool, Int

from jaxtrace.engine.measure import StepTrace
from jaxtrace.schema import QUANTITIES

Metrics = dict[str, np.ndarray]  # of one prompt: name → [steps, …]
OnProgress = Callable[[int, int, float], None]  # new prompts, new tokens, sum of their entropies


class Gathered:
    """The metrics of this process's prompts as they come in; each is given out with its index."""

    def __init__(self, on_progress: OnProgress, own: Bool[np.ndarray, " B"]):
        """Of nothing yet.

        Args:
          on_progress: told of every row's progress.
          own: the rows whose prompts this process gives out; of the others it need only know the scalars.
        """
        self._on_progress = on_progress
        self._own = own
        self._parts: dict[int, list[Metrics]] = defaultdict(list)
        self._whole: dict[int, Metrics] = {}
        self._begun: deque[int] = deque()  # and not given out
        self._last = -1  # begun

    def begin(self, trace: StepTrace, group: Sequence[tuple[int, int]], counts: Int[np.ndarray, " A"]) -> None:
        """Takes in what was measured of positions that prompts fed before their rows' steps.

        Args:
          trace: of some positions [A, T, …], on the host.
          group: the row that is to be each prompt's, and the prompt.
          counts: how many of the positions are each prompt's own.
        """
        metrics = {name: x for name, x in vars(trace).items() if x is not None}
        for i, (row, prompt) in enumerate(group):
            if self._own[row] and counts[i]:
                self._parts[prompt].append({name: x[i, : counts[i]] for name, x in metrics.items()})

    def add(
        self,
        trace: StepTrace,
        holders: Sequence[int | None],
        places: dict[int, tuple[slice | int, ...]],
        done: Bool[np.ndarray, " B"],
    ) -> Iterator[list[tuple[int, Metrics]]]:
        """Takes a chunk of steps in, and gives out the prompts that are whole, as are all of its own before them.

        Args:
          trace: of the chunk, on the host.
          holders: the prompt of each row; rows take prompts in their order.
          places: where a row's steps stand in the arrays of `trace`, of the rows that have some.
          done: which rows have come to their end.
        """
        metrics = {name: x for name, x in vars(trace).items() if x is not None}
        own = {row: place for row, place in places.items() if self._own[row]}
        self._begin(cast(int, holders[row]) for row in own)
        for row, place in own.items():
            prompt = cast(int, holders[row])
            self._parts[prompt].append({name: x[place] for name, x in metrics.items()})
            if done[row]:
                parts = self._parts.pop(prompt)
                self._whole[prompt] = {name: joined(name, [part[name] for part in parts]) for name in metrics}
        self._report(metrics, places, done)
        if ready := self._ready():
            yield ready

    def _begin(self, prompts: Iterable[int]) -> None:
        self._begun.extend(sorted(prompt for prompt in prompts if prompt > self._last))
        self._last = max(self._last, *self._begun, -1)

    def _ready(self) -> list[tuple[int, Metrics]]:
        ready = []
        while self._begun and self._begun[0] in self._whole:
            prompt = self._begun.popleft()
            ready.append((prompt, self._whole.pop(prompt)))
        return ready

    def _report(
        self, metrics: Metrics, places: dict[int, tuple[slice | int, ...]], done: Bool[np.ndarray, " B"]
    ) -> None:
        entropy = metrics.get("entropy")
        tokens = sum(metrics["token"][place].size for place in places.values())
        finished = sum(bool(done[row]) for row in places)
        total = np.nan if entropy is None else sum(np.nansum(entropy[place]) for place in places.values())
        self._on_progress(finished, tokens, float(total))


def joined(name: str, parts: list[np.ndarray]) -> np.ndarray:
    """The steps of all parts; those over a cache of fewer slots are filled up with NaN."""
    if "key" in QUANTITIES[name].dims:
        slots = max(part.shape[-1] for part in parts)
        pad = [(0, 0)] * (parts[0].ndim - 1)
        parts = [np.pad(x, [*pad, (0, slots - x.shape[-1])], constant_values=np.nan) for x in parts]
    return np.concatenate(parts)
