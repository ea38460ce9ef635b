"""Figures of a trace, drawn from `Trace.to_xarray()` with matplotlib's object interface.

The schema says which metrics each figure draws (`Metric.plots`), and with which label and unit. A figure raises
ValueError if the dataset has none of them. A panel without a finite value says so.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxtrace.figures.html import png
from jaxtrace.figures.theme import (
    DOTS,
    LIGHT,
    Theme,
    dress,
    fill_band,
    heat_map,
    label_gaps,
    legend,
    new_figure,
    new_panel,
    note_missing,
    point_marker,
    whole_numbers,
)
from jaxtrace.files import write_atomically
from jaxtrace.schema import METRICS, plotted_in

BAND = (0.1, 0.9)
Draw = Callable[[xr.Dataset, Theme], Figure]


def _unless_empty(draw: Draw) -> Draw:
    """Return a function that draws a figure, or for a dataset without a step an empty one that says so."""

    @functools.wraps(draw)
    def figure(ds: xr.Dataset, theme: Theme = LIGHT) -> Figure:
        if ds.sizes["prompt"] and ds.sizes["step"]:
            return draw(ds, theme)
        empty, axes = new_panel(theme, 6.2, 2.5, draw.__name__.replace("_", " "))
        note_missing(axes, theme, "no prompt has a step")
        return empty

    return figure


@_unless_empty
def entropy_steps(ds: xr.Dataset, theme: Theme = LIGHT) -> Figure:
    """Draw output entropy and varentropy by step, and the number of prompts alive.

    Mean (line), median (dashes) and 10–90 % band are over the prompts alive at a step.
    """
    names = _present(ds, "entropy_steps")
    figure = new_figure(theme, 6.2, 1.2 + 1.75 * len(names))
    panels = figure.subplots(len(names) + 1, 1, sharex=True, height_ratios=[4] * len(names) + [1], squeeze=False)
    for axes, name in zip(panels[:, 0], names, strict=False):
        dress(axes, theme, f"Output {METRICS[name].label} along the steps", y=METRICS[name].axis_label)
        _band(axes, theme, ds["step"].values, ds[name].values, median=True)
    legend(panels[0, 0], theme)
    alive = np.isfinite(ds[names[0]].values).sum(0)
    strip = panels[-1, 0]
    dress(strip, theme, x="step", y="prompts\nalive")
    strip.stairs(alive, np.arange(len(alive) + 1) - 0.5, fill=True, color=theme.faint, alpha=0.35, linewidth=0)
    strip.set_ylim(0, 1.1 * alive.max(initial=1))
    strip.set_yticks([0, alive.max(initial=1)])
    strip.set_xlim(-0.5, len(alive) - 0.5)
    strip.xaxis.set_major_locator(whole_numbers())
    return figure


@_unless_empty
def attention_map(ds: xr.Dataset, theme: Theme = LIGHT) -> Figure:
    """Draw layer × step heat maps of attention entropy, averaged over heads and over the prompts alive.

    Entropy grows with ln(keys) as a text grows, so the normalised entropy stands beside it.
    """
    names = _present(ds, "attention_map")
    figure = new_figure(theme, 6.2, 2.9)
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        values = _layers(ds[name]).mean(("prompt", "head")).transpose("layer", "step")
        dress(axes, theme, _title(name), x="step", y="layer" if axes is panels[0] else "")
        layers, steps = values["layer"].values, values["step"].values
        stride = layers[1] - layers[0] if len(layers) > 1 else 1
        extent = (steps[0] - 0.5, steps[-1] + 0.5, layers[0] - stride / 2, layers[-1] + stride / 2)
        heat_map(axes, theme, values.values, METRICS[name].unit, extent)
    return figure


@_unless_empty
def layer_profile(ds: xr.Dataset, theme: Theme = LIGHT) -> Figure:
    """Draw attention entropy by layer with its spread over heads, and head dispersion by layer."""
    names = _present(ds, "layer_profile")
    of_heads = [name for name in names if "head" in METRICS[name].dims]
    of_layers = [name for name in names if name not in of_heads]
    figure = new_figure(theme, 6.2, 2.7)
    panels = figure.subplots(1, len(of_heads) + bool(of_layers), squeeze=False)[0]
    for axes, name in zip(panels, of_heads, strict=False):
        dress(axes, theme, f"{_title(name)} by layer", "layer", METRICS[name].axis_label)
        heads = _layers(ds[name]).mean(("prompt", "step")).transpose("head", "layer")
        _band(axes, theme, heads["layer"].values, heads.values, over="heads")
        label_gaps(axes, heads["layer"].values, heads.values)
    if of_layers:
        dress(panels[-1], theme, "Head dispersion by layer", "layer", f"dispersion ({METRICS[of_layers[0]].unit})")
        for name, color in zip(of_layers, theme.lines, strict=False):
            means = _layers(ds[name]).mean(("prompt", "step"))
            panels[-1].plot(means["layer"], means, color=color, label=METRICS[name].label, linewidth=1.8, **DOTS)
        if not any(np.isfinite(line.get_ydata()).any() for line in panels[-1].lines):
            note_missing(panels[-1], theme)
        means = [_layers(ds[name]).mean(("prompt", "step")) for name in of_layers]
        label_gaps(panels[-1], means[0]["layer"].values, means)
        panels[-1].set_ylim(0, 1.35 * panels[-1].get_ylim()[1])
    for axes in panels:
        legend(axes, theme)
        _layer_axis(axes, ds)
    return figure


@_unless_empty
def lens_profile(ds: xr.Dataset, theme: Theme = LIGHT) -> Figure:
    """Draw lens entropy, varentropy and KL(final ‖ lens) by layer: mean and 10–90 % band over all tokens."""
    return _layer_bands(ds, theme, "lens_profile")


@_unless_empty
def router_profile(ds: xr.Dataset, theme: Theme = LIGHT) -> Figure:
    """Draw router entropy and mass of the chosen experts by layer: mean and 10–90 % band over all tokens."""
    return _layer_bands(ds, theme, "router_profile")


def _layer_bands(ds: xr.Dataset, theme: Theme, figure_name: str) -> Figure:
    """Draw the metrics of a figure by layer, a panel each: mean and 10–90 % band over all tokens."""
    names = _present(ds, figure_name)
    figure = new_figure(theme, 6.2, 2.5)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        dress(axes, theme, _title(name), "layer", METRICS[name].unit)
        tokens = _layers(ds[name]).transpose("prompt", "step", "layer")
        _band(axes, theme, tokens["layer"].values, tokens.values.reshape(-1, tokens.sizes["layer"]), over="tokens")
        label_gaps(axes, tokens["layer"].values, tokens.values)
        _layer_axis(axes, ds)
    panels[-1].set_ylim(0, 1.35 * panels[-1].get_ylim()[1])
    legend(panels[-1], theme)
    return figure


FIGURES: dict[str, Draw] = {
    "entropy_steps": entropy_steps,
    "attention_map": attention_map,
    "layer_profile": layer_profile,
    "lens_profile": lens_profile,
    "router_profile": router_profile,
}


def figures(ds: xr.Dataset, theme: Theme = LIGHT) -> dict[str, Figure]:
    """Return by name every figure for which the dataset has a metric."""
    return {
        name: draw(ds, theme)
        for name, draw in FIGURES.items()
        if ds.sizes["step"] and any(metric in ds for metric in plotted_in(name))
    }


def write_plots(ds: xr.Dataset, directory: str | Path) -> list[Path]:
    """Write each figure as `<name>.png` and return the paths.

    Args:
      directory: directory to write to, created if missing; files of the same names are replaced.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures(ds).items():
        paths.append(directory / f"{name}.png")
        write_atomically(paths[-1], png(figure, dpi=200))
    return paths


def _present(ds: xr.Dataset, figure: str) -> list[str]:
    names = plotted_in(figure)
    present = [name for name in names if name in ds]
    if not present:
        groups = ", ".join(dict.fromkeys(METRICS[name].group for name in names))
        raise ValueError(f"{figure}: the dataset has none of {', '.join(names)}; trace again with probes {groups}")
    return present


def _title(name: str) -> str:
    label = METRICS[name].label
    return label[0].upper() + label[1:]


def _layers(array: xr.DataArray) -> xr.DataArray:
    """Return a metric at the layers, from 1, where it was recorded."""
    layers = array.attrs.get("layers", array["layer"].values)
    return array.sel(layer=[layer for layer in layers if layer > 0])


def _layer_axis(axes: Axes, ds: xr.Dataset) -> None:
    axes.set_xlim(0.5, ds["layer"].values[-1] + 0.5)
    axes.xaxis.set_major_locator(whole_numbers())


def _band(
    axes: Axes, theme: Theme, x: np.ndarray, values: np.ndarray, median: bool = False, over: str = "prompts"
) -> None:
    """Draw mean and band of values [samples, x], with gaps at columns that hold no finite number."""
    values = np.where(np.isfinite(values), values, np.nan)
    if not (keep := ~np.isnan(values).all(0)).any():
        return note_missing(axes, theme)
    kept, lines = values[:, keep], np.full((4, len(x)), np.nan)
    lines[:3, keep] = np.nanquantile(kept, [BAND[0], 0.5, BAND[1]], axis=0)
    lines[3, keep] = np.nanmean(kept, 0)
    low, middle, high, mean = lines
    marker = DOTS if len(x) <= 40 else point_marker(mean)
    fill_band(axes, x, low, high, color=theme.first, alpha=0.18, label=f"10–90 % of {over}")
    axes.plot(x, mean, color=theme.first, linewidth=1.8, label="mean", **marker)
    if median:
        axes.plot(x, middle, color=theme.first, linewidth=1.1, linestyle=(0, (3, 2)), label="median")
    axes.set_ylim(bottom=0)
