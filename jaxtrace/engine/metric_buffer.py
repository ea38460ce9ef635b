"""A buffer of metrics: prompts finish in any order, and leave it in the order of the prompts."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import numpy as np
from jaxtyping import Bool, Int

from jaxtrace import interrupts
from jaxtrace.engine.measure import StepTrace
from jaxtrace.schema import QUANTITIES

Metrics = dict[str, np.ndarray]  # metrics of one prompt: name → [steps, …]
OnProgress = Callable[[int, int, float], None]  # new prompts, new tokens, sum of their entropies


class MetricBuffer:
    """Metrics of this process's prompts, collected per chunk of steps and returned per finished prompt."""

    def __init__(self, on_progress: OnProgress, local_rows: Bool[np.ndarray, " B"]) -> None:
        """Create an empty buffer.

        Args:
          on_progress: callback that receives the progress of every row.
          local_rows: True for the rows whose prompts this process returns; it needs only the scalars of the others.
        """
        self._on_progress = on_progress
        self._local_rows = local_rows
        self._parts: dict[int, list[Metrics]] = defaultdict(list)
        self._finished: dict[int, Metrics] = {}
        self._pending: deque[int] = deque()  # prompts that were started and not returned, ascending
        self._last = -1  # last prompt that was started

    def add_prompts(self, trace: StepTrace, group: Sequence[tuple[int, int]], counts: Int[np.ndarray, " A"]) -> None:
        """Add the metrics of prompt positions that were fed before the rows' own steps.

        Args:
          trace: traces of the positions [A, T, …], on the host.
          group: (row, prompt) pairs, one per trace.
          counts: number of positions of each prompt before the padding.
        """
        metrics = trace.arrays
        for i, (row, prompt) in enumerate(group):
            if self._local_rows[row] and counts[i]:
                self._parts[prompt].append({name: x[i, : counts[i]] for name, x in metrics.items()})

    def add_steps(
        self,
        trace: StepTrace,
        row_prompts: Sequence[int | None],
        slices: dict[int, tuple[slice | int, ...]],
        finished: Bool[np.ndarray, " B"],
    ) -> Iterator[list[tuple[int, Metrics]]]:
        """Add a chunk of steps and yield the prompts that are complete and have no unfinished local prompt before them.

        Args:
          trace: trace of the chunk, on the host.
          row_prompts: prompt of each row; rows take prompts in ascending order.
          slices: index of each row's steps in the arrays of `trace`, for rows with steps.
          finished: True for rows that have ended.
        """
        metrics = trace.arrays
        local = {row: index for row, index in slices.items() if self._local_rows[row]}
        self._start(cast(int, row_prompts[row]) for row in local)
        for row, index in local.items():
            prompt = cast(int, row_prompts[row])
            self._parts[prompt].append({name: x[index] for name, x in metrics.items()})
            if finished[row]:
                parts = self._parts.pop(prompt)
                self._finished[prompt] = {
                    name: concatenate_steps(name, [part[name] for part in parts]) for name in metrics
                }
        self._report(metrics, slices, finished)
        if ready := self._pop_ready():
            yield ready

    def end_if_interrupted(self) -> Iterator[list[tuple[int, Metrics]]]:
        """After a signal, yield the finished prompts that wait for earlier ones, and raise KeyboardInterrupt."""
        if interrupts.requested() is not None:
            if self._finished:
                yield sorted(self._finished.items())
            interrupts.check()

    def _start(self, prompts: Iterable[int]) -> None:
        self._pending.extend(sorted(prompt for prompt in prompts if prompt > self._last))
        self._last = max(self._last, *self._pending, -1)

    def _pop_ready(self) -> list[tuple[int, Metrics]]:
        ready = []
        while self._pending and self._pending[0] in self._finished:
            prompt = self._pending.popleft()
            ready.append((prompt, self._finished.pop(prompt)))
        return ready

    def _report(
        self, metrics: Metrics, slices: dict[int, tuple[slice | int, ...]], finished: Bool[np.ndarray, " B"]
    ) -> None:
        entropy = metrics.get("entropy")
        tokens = sum(metrics["token"][index].size for index in slices.values())
        prompts = sum(bool(finished[row]) for row in slices)
        total = np.nan if entropy is None else sum(np.nansum(entropy[index]) for index in slices.values())
        self._on_progress(prompts, tokens, float(total))


def concatenate_steps(name: str, parts: list[np.ndarray]) -> np.ndarray:
    """Concatenate the steps of one metric; parts over a smaller cache are padded with NaN."""
    if "key" in QUANTITIES[name].dims:
        slots = max(part.shape[-1] for part in parts)
        pad = [(0, 0)] * (parts[0].ndim - 1)
        parts = [np.pad(x, [*pad, (0, slots - x.shape[-1])], constant_values=np.nan) for x in parts]
    return np.concatenate(parts)
