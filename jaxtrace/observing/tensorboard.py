"""TensorBoard events of a running trace; the schema says which metrics have which (`Metric.tensorboard`)."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import jax
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxtrace.errors import ConfigError
from jaxtrace.figures.theme import LIGHT, Theme, dress, heat_map, new_figure
from jaxtrace.observing.memory import memory_in_use
from jaxtrace.schema import METRICS, in_tensorboard
from jaxtrace.traces.layers import layer_count, layer_mean, layers_text
from jaxtrace.traces.row import Row

PACE_SECONDS = 2.0  # between scalars of a run's pace
SIDE = 0.16  # inches of a cell in a large map
DRAWING_SHARE = 0.01  # share of a run's time that histograms and maps may take


def check_installed() -> None:
    """Raise ConfigError if tensorboardX is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise ConfigError("tensorboard: needs tensorboardX; pip install 'jaxtrace[observe]'")


class Board:
    """Writer of event files: scalars always, histograms and maps as often as they cost little.

    The horizontal axis is the number of tokens traced so far. Histograms and maps are drawn for the first finished rows
    and for the last.
    """

    def __init__(self, directory: Path, layers: Sequence[int]) -> None:
        """Open event files.

        Args:
          directory: directory to write to; several processes write to a directory each inside it.
        """
        from tensorboardX import SummaryWriter

        own = directory / f"process-{jax.process_index()}" if jax.process_count() > 1 else directory
        self._writer, self._layers = SummaryWriter(str(own), flush_secs=10), layers
        self._began = self._pace_time = time.monotonic()
        self._tokens = self._pace_tokens = 0
        self._drawing_seconds = 0.0
        self._maps: dict[str, HeadMeans] = {}
        self._undrawn: list[Row] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Draw the rows that were not drawn yet, and close the files."""
        if self._undrawn:
            self._draw()
        self._writer.close()

    def on_progress(self, prompts: int, tokens: int, entropy: float) -> None:
        """Count new tokens, and write pace and memory if the last scalars are old enough."""
        self._tokens += tokens
        now = time.monotonic()
        if now - self._pace_time < PACE_SECONDS:
            return
        self._scalar("run/tokens_per_second", (self._tokens - self._pace_tokens) / (now - self._pace_time))
        for name, size in memory_in_use().items():
            self._scalar(f"memory/{name}", size / 2**20)
        self._pace_time, self._pace_tokens = now, self._tokens

    def on_rows(self, numbered_rows: Sequence[tuple[int, Row]]) -> None:
        """Write the metrics of finished rows."""
        rows = [row for _, row in numbered_rows]
        for name in in_tensorboard("scalar"):
            recorded = [row for row in rows if name in row.metrics]
            if (values := _finite(layer_mean(row, name) for row in recorded)).size:
                layers = layers_text((layer_count(row, name) for row in recorded), self._layers[-1])
                self._scalar(METRICS[name].tag("scalar"), values.mean(), layers and f"mean over {layers}")
        for name in in_tensorboard("map"):
            for values in (row.metrics[name] for row in rows if name in row.metrics):
                self._maps.setdefault(name, HeadMeans(values.shape[1:])).add(values)
        self._undrawn = rows
        if self._drawing_seconds <= DRAWING_SHARE * (time.monotonic() - self._began):
            self._draw()

    def _draw(self) -> None:
        """Draw histograms of the latest rows, and maps of all rows."""
        began = time.monotonic()
        for name in in_tensorboard("histogram"):
            arrays = [row.metrics[name] for row in self._undrawn if name in row.metrics]
            for i, layer in enumerate(self._layers, 1 - METRICS[name].first_layer):
                if (values := _finite(array[:, i] for array in arrays)).size:
                    self._writer.add_histogram(METRICS[name].tag("histogram", layer), values, self._tokens)
        for name, means in self._maps.items():
            image = head_map(means.value, self._layers, f"{name}, mean over all tokens", METRICS[name].unit)
            self._writer.add_image(METRICS[name].tag("map"), image, self._tokens, dataformats="HWC")
        self._undrawn = []
        self._drawing_seconds += time.monotonic() - began

    def _scalar(self, name: str, value: float, text: str = "") -> None:
        self._writer.add_scalar(name, value, self._tokens, summary_description=text)


class HeadMeans:
    """Running means over tokens, one per layer and head; NaN without a finite value."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Start with no tokens; `shape` is (layers, heads)."""
        self._sum, self._count = np.zeros(shape), np.zeros(shape)

    def add(self, values: np.ndarray) -> None:
        """Add the tokens of a row [steps, layers, heads]."""
        self._sum += np.nansum(values, axis=0)
        self._count += np.isfinite(values).sum(axis=0)

    @property
    def value(self) -> np.ndarray:
        """Means [layers, heads]."""
        return np.divide(self._sum, self._count, out=np.full_like(self._sum, np.nan), where=self._count > 0)


def _finite(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Return the finite numbers of arrays, as one array."""
    values = np.concatenate([np.zeros(0, np.float32), *(array.ravel() for array in arrays)])
    return values[np.isfinite(values)]


def head_map(
    values: Float[np.ndarray, "L N"], layers: Sequence[int], title: str, unit: str, theme: Theme = LIGHT
) -> UInt8[np.ndarray, "height width 3"]:
    """Return layer × head as colours, the first layer at the bottom; NaN is white."""
    rows, heads = values.shape
    figure = new_figure(theme, max(4.0, 1.6 + SIDE * heads), max(2.6, 0.9 + SIDE * rows))
    figure.set_dpi(100)
    axes = figure.subplots()
    dress(axes, theme, title, "head", "layer")
    heat_map(axes, theme, values, unit)
    axes.yaxis.set_major_formatter(lambda place, _: str(layers[int(place)]) if 0 <= place < rows else "")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
