"""A stretch of a run for JAX's profiler."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import jax

CHUNKS = 4  # profiled; of the engine's chunks of steps


class Profile:
    """Profiles a few chunks of steps: those after the first one, when the programs have been compiled.

    What is written is for TensorBoard's profile plugin, xprof, or Perfetto. The programs' named scopes are "embed",
    "layer_1" (or, of layers that are scanned, "layer_1_of_2": the first of a period of two), in it "attention" and
    "feed_forward", and "unembed", "attention_metrics", "hidden_metrics", "sample".

    Attributes:
      done: whether a chunk was profiled.
    """

    def __init__(self, directory: Path):
        """For a directory to write to."""
        self.done = False
        self._directory, self._left = directory, CHUNKS + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the stretch, if it goes on."""
        if 0 < self._left <= CHUNKS:
            self._end()

    def on_progress(self, prompts: int, tokens: int, entropy: float) -> None:
        """Takes what a run says of its progress: that a chunk is done."""
        self._left -= 1
        if self._left == CHUNKS:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            jax.profiler.start_trace(str(self._directory), profiler_options=options)
        elif self._left == 0:
            self._end()

    def _end(self) -> None:
        jax.profiler.stop_trace()
        self.done, self._left = self._left < CHUNKS, 0
