"""Pictures of attention entropy under different conditions, one row per model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxtrace.figures.theme import Theme, dress, fill_band, label_gaps, legend, new_figure, point_marker, whole_numbers

RESIDUAL_PANEL = {"attention_entropy_given_ln_keys": "attention entropy,\nln(keys) removed (nats)"}
PANELS = {"attention_entropy": "attention entropy (nats)", "attention_varentropy": "attention varentropy (nats²)"}
DrawLine = Callable[[Axes, pd.DataFrame, str, str], None]


def steps_figure(frame: pd.DataFrame, matched: Mapping[str, int], theme: Theme) -> Figure:
    """Draw entropy and varentropy along the steps: mean over answers and its interval, one line per condition.

    The first panel shows the residual of entropy's regression on ln(keys).

    Args:
      frame: model, condition, metric, step, mean, mean_low, mean_high.
      matched: model → last matched step.
    """

    def draw(axes: Axes, rows: pd.DataFrame, color: str, name: str) -> None:
        first, later = rows[rows["step"] == 0], rows[rows["step"] > 0]
        gaps = np.array([first["mean"] - first["mean_low"], first["mean_high"] - first["mean"]])
        axes.errorbar(first["step"], first["mean"], np.nan_to_num(gaps), color=color, marker="o", markersize=3.5)
        axes.fill_between(later["step"], later["mean_low"], later["mean_high"], color=color, alpha=0.18, linewidth=0)
        axes.plot(later["step"], later["mean"], color=color, linewidth=1.6, label=name)

    figure, panels = _panels(frame, "step", theme, draw, RESIDUAL_PANEL | PANELS)
    for row, model in zip(panels, frame["model"].unique(), strict=True):
        for axes in row:
            axes.axvline(matched[model], color=theme.faint, linewidth=0.9, linestyle=":")
    return figure


def layers_figure(frame: pd.DataFrame, theme: Theme) -> Figure:
    """Draw entropy and varentropy by layer, with a band of one standard deviation over heads to either side.

    Args:
      frame: model, condition, metric, layer, mean, over_heads.
    """

    def draw(axes: Axes, rows: pd.DataFrame, color: str, name: str) -> None:
        low, high = rows["mean"] - rows["over_heads"], rows["mean"] + rows["over_heads"]
        fill_band(axes, rows["layer"], low, high, color=color, alpha=0.15)
        axes.plot(rows["layer"], rows["mean"], color=color, linewidth=1.8, marker="o", markersize=3, label=name)

    figure, panels = _panels(frame, "layer", theme, draw)
    for row, model in zip(panels, frame["model"].unique(), strict=True):
        of_model = frame[(frame["model"] == model) & (frame["metric"] == next(iter(PANELS)))]
        values = of_model.pivot(index="condition", columns="layer", values="mean")
        if any([label_gaps(axes, values.columns, values) for axes in row]):
            legend(row[0], theme)
    return figure


def heads_figure(frame: pd.DataFrame, theme: Theme) -> Figure:
    """Draw attention entropy of each head by layer: one row per model, one panel per condition.

    Args:
      frame: model, condition, layer, head, attention_entropy.
    """
    models, names = frame["model"].unique(), frame["condition"].unique()
    figure = new_figure(theme, max(6.2, 2.4 * len(names)), 0.5 + 2.4 * len(models))
    panels = figure.subplots(len(models), len(names), sharex="row", sharey="row", squeeze=False)
    colors = _colors(theme, names)
    for row, model in zip(panels, models, strict=True):
        for axes, name in zip(row, names, strict=True):
            label = PANELS["attention_entropy"] if axes is row[0] else ""
            dress(axes, theme, f"{model}: {name}", x="layer", y=label)
            rows = frame[(frame["model"] == model) & (frame["condition"] == name)]
            for _, head in rows.groupby("head"):
                x, y = head["layer"], head["attention_entropy"]
                axes.plot(x, y, color=colors[name], linewidth=0.9, alpha=0.7, **point_marker(y))
            values = rows.pivot(index="head", columns="layer", values="attention_entropy")
            if label_gaps(axes, values.columns, values):
                legend(axes, theme)
            axes.xaxis.set_major_locator(whole_numbers())
        row[0].set_ylim(bottom=0)
    return figure


def around_figure(frame: pd.DataFrame, theme: Theme) -> Figure:
    """Draw entropy and varentropy around the first wrong step: mean over answers and its interval.

    Args:
      frame: model, condition, metric, offset, mean, mean_low, mean_high.
    """

    def draw(axes: Axes, rows: pd.DataFrame, color: str, name: str) -> None:
        axes.fill_between(rows["offset"], rows["mean_low"], rows["mean_high"], color=color, alpha=0.18, linewidth=0)
        axes.plot(rows["offset"], rows["mean"], color=color, linewidth=1.6, label=name)

    figure, panels = _panels(frame, "offset", theme, draw)
    for axes in panels.flat:
        axes.axvline(0, color=theme.faint, linewidth=0.9, linestyle=":")
        axes.set_xlabel("steps after the wrong one began")
    return figure


def _panels(
    frame: pd.DataFrame, x: str, theme: Theme, draw: DrawLine, metrics: Mapping[str, str] = PANELS
) -> tuple[Figure, np.ndarray]:
    """Draw a row of panels per model, a panel per metric, and a line per condition."""
    models, names = frame["model"].unique(), frame["condition"].unique()
    parts = dict(list(frame.groupby(["model", "metric", "condition"])))
    figure = new_figure(theme, 3.6 * len(metrics), 0.5 + 2.5 * len(models))
    panels = figure.subplots(len(models), len(metrics), squeeze=False)
    colors = _colors(theme, names)
    for row, model in zip(panels, models, strict=True):
        for axes, (metric, label) in zip(row, metrics.items(), strict=True):
            dress(axes, theme, model, x=x, y=label)
            for name in names:
                if (model, metric, name) in parts:
                    draw(axes, parts[model, metric, name], colors[name], name)
            if metric not in RESIDUAL_PANEL:
                axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(whole_numbers())
    legend(panels[0, 0], theme)
    return figure, panels


def _colors(theme: Theme, names: Iterable[str]) -> dict[str, str]:
    return {name: theme.lines[i % len(theme.lines)] for i, name in enumerate(names)}
