"""Profile of a few chunks of a run's steps, by JAX's profiler."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import jax

CHUNKS = 4  # profiled chunks of the engine's steps


class Profile:
    """Profiler of the chunks of steps after the first one, by which time the programs are compiled.

    TensorBoard's profile plugin, xprof and Perfetto read its files. The programs' named scopes are "embed", "layer_1"
    (or for scanned layers "layer_1_of_2": the first layer of a period of two), inside it "attention" and
    "feed_forward", and "unembed", "attention_metrics", "hidden_metrics", "sample".

    Attributes:
      done: True once a chunk was profiled.
    """

    def __init__(self, directory: Path) -> None:
        """Prepare to write to a directory."""
        self.done = False
        self._directory, self._chunks_left = directory, CHUNKS + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the profiler if it is running."""
        if 0 < self._chunks_left <= CHUNKS:
            self._stop()

    def on_progress(self, prompts: int, tokens: int, entropy: float) -> None:
        """Note that the run has finished a chunk; start or stop the profiler."""
        self._chunks_left -= 1
        if self._chunks_left == CHUNKS:
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            jax.profiler.start_trace(str(self._directory), profiler_options=options)
        elif self._chunks_left == 0:
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self.done, self._chunks_left = self._chunks_left < CHUNKS, 0
