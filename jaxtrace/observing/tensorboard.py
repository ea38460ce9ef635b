"""A run as it goes on, for TensorBoard."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import jax
import numpy as np

from jaxtrace.errors import ConfigError
from jaxtrace.observing.images import head_map
from jaxtrace.observing.memory import memory_in_use
from jaxtrace.schema import QUANTITIES
from jaxtrace.traces.trace import Row

EVERY = 2.0  # seconds between scalars of a run's pace
SHARE = 0.01  # of a run's time that histograms and images may take
SCALARS = ("entropy", "varentropy")
HISTOGRAMS = ("attention_entropy", "lens_entropy")
MAPS = ("attention_entropy", "attention_varentropy", "attention_entropy_no_sink", "sink_mass")


def check_installed() -> None:
    """Raises ConfigError where tensorboardX is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise ConfigError("tensorboard: needs tensorboardX; pip install 'jaxtrace[observe]'")


class Board:
    """Writes event files: scalars always, histograms and images as often as they cost little.

    The horizontal axis is the number of tokens traced so far. The first rows that are done are drawn, and the last.
    """

    def __init__(self, directory: Path, layers: Sequence[int]):
        """Event files in a directory, of a run that traces these layers."""
        from tensorboardX import SummaryWriter

        own = directory / f"process-{jax.process_index()}" if jax.process_count() > 1 else directory
        self._writer, self._layers = SummaryWriter(str(own), flush_secs=10), layers
        self._began = self._said = time.monotonic()
        self._tokens = self._said_tokens = 0
        self._spent = 0.0
        self._maps: dict[str, HeadMeans] = {}
        self._undrawn: list[Row] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draws what was not drawn yet, and closes the files."""
        if self._undrawn:
            self._draw()
        self._writer.close()

    def on_progress(self, prompts: int, tokens: int, entropy: float) -> None:
        """Takes what a run says of its progress."""
        self._tokens += tokens
        now = time.monotonic()
        if now - self._said < EVERY:
            return
        self._scalar("run/tokens_per_second", (self._tokens - self._said_tokens) / (now - self._said))
        for name, size in memory_in_use().items():
            self._scalar(f"memory/{name}", size / 2**20)
        self._said, self._said_tokens = now, self._tokens

    def on_rows(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Takes rows that are done."""
        found = [row for _, row in rows]
        for name in SCALARS:
            if (values := _finite(row.metrics[name] for row in found if name in row.metrics)).size:
                self._scalar(f"output/{name}", values.mean())
        for name in MAPS:
            for values in (row.metrics[name] for row in found if name in row.metrics):
                self._maps.setdefault(name, HeadMeans(values.shape[1:])).add(values)
        self._undrawn = found
        if self._spent <= SHARE * (time.monotonic() - self._began):
            self._draw()

    def _draw(self) -> None:
        """Histograms of the latest rows, and maps of all."""
        began = time.monotonic()
        for name in HISTOGRAMS:
            rows = [row.metrics[name] for row in self._undrawn if name in row.metrics]
            for i, layer in enumerate(self._layers):
                if (values := _finite(x[:, i] for x in rows)).size:
                    self._writer.add_histogram(f"{name}/layer_{layer:02d}", values, self._tokens)
        for name, means in self._maps.items():
            image = head_map(means.value, self._layers, f"{name}, mean over all tokens", QUANTITIES[name].unit)
            self._writer.add_image(f"heads/{name}", image, self._tokens, dataformats="HWC")
        self._undrawn = []
        self._spent += time.monotonic() - began

    def _scalar(self, name: str, value: float) -> None:
        self._writer.add_scalar(name, value, self._tokens)


class HeadMeans:
    """Means over tokens of what every head of every layer says; NaN where it says nothing."""

    def __init__(self, shape: tuple[int, ...]):
        self._sum, self._count = np.zeros(shape), np.zeros(shape)

    def add(self, values: np.ndarray) -> None:
        """Takes the tokens of a row [steps, layers, heads]."""
        self._sum += np.nansum(values, axis=0)
        self._count += np.isfinite(values).sum(axis=0)

    @property
    def value(self) -> np.ndarray:
        """[layers, heads]."""
        return np.divide(self._sum, self._count, out=np.full_like(self._sum, np.nan), where=self._count > 0)


def _finite(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """The numbers of some arrays that are finite."""
    values = np.concatenate([np.zeros(0, np.float32), *(x.ravel() for x in arrays)])
    return values[np.isfinite(values)]
