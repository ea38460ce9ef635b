"""Figures of a trace: what `Trace.to_xarray()` gives, drawn with matplotlib's object interface."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxtrace.figures.theme import LIGHT, Theme, dress, legend, new_figure, whole_numbers

BAND = (0.1, 0.9)


def entropy_steps(ds: xr.Dataset, theme: Theme = LIGHT) -> Figure:
    """Output entropy and varentropy along the steps, and how many prompts are still alive.

    Mean (line), median (dashes) and the 10–90 % band are over the prompts alive at a step.

    Args:
      ds: a dataset with `entropy` or `varentropy` over (prompt, step).
      theme: the colours.

    Raises:
      ValueError: it has neither.
    """
    names = _present(ds, "entropy", "varentropy")
    figure = new_figure(theme, 6.2, 1.2 + 1.75 * len(names))
    panels = figure.subplots(len(names) + 1, 1, sharex=True, height_ratios=[4] * len(names) + [1], squeeze=False)
    titles = {"entropy": "Output entropy along the steps", "varentropy": "Output varentropy along the steps"}
    for axes, name in zip(panels[:, 0], names, strict=False):
        dress(axes, theme, titles[name], y=_label(ds, name))
        steps, values = _columns(ds[name].values, ds["step"].values)
        _band(axes, steps, values, theme.first, median=True)
        axes.set_ylim(bottom=0)
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


def attention_map(ds: xr.Dataset, theme: Theme = LIGHT) -> Figure:
    """Layer × step heat maps of attention entropy, mean over heads and over the prompts alive.

    Entropy grows with ln(keys) as a text grows, so the normalised one is drawn beside it.

    Args:
      ds: a dataset with `attention_entropy` or `attention_entropy_normalized`.
      theme: the colours.

    Raises:
      ValueError: it has neither.
    """
    names = _present(ds, "attention_entropy", "attention_entropy_normalized")
    titles = {
        "attention_entropy": "Attention entropy",
        "attention_entropy_normalized": "Divided by ln(visible keys)",
    }
    figure = new_figure(theme, 6.2, 2.9)
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        values = _layers(ds[name]).mean(("prompt", "head")).transpose("layer", "step")
        dress(axes, theme, titles[name], x="step", y="layer" if axes is panels[0] else "")
        axes.grid(False)
        layers = values["layer"].values
        steps = values["step"].values
        stride = layers[1] - layers[0] if len(layers) > 1 else 1
        image = axes.imshow(
            values.values,
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            cmap=theme.cmap,
            extent=(steps[0] - 0.5, steps[-1] + 0.5, layers[0] - stride / 2, layers[-1] + stride / 2),
        )
        bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=24)
        bar.ax.tick_params(colors=theme.faint, labelsize=8, length=3)
        bar.set_label(ds[name].attrs["units"] or "share of the maximum", fontsize=9, color=theme.ink)
        bar.outline.set_visible(False)
        axes.xaxis.set_major_locator(whole_numbers())
        axes.yaxis.set_major_locator(whole_numbers())
    return figure


def layer_profile(ds: xr.Dataset, theme: Theme = LIGHT) -> Figure:
    """Attention entropy by layer with its spread over heads, and the head dispersion by layer.

    Args:
      ds: a dataset with `attention_entropy`, `hdi` or `head_jsd`.
      theme: the colours.

    Raises:
      ValueError: it has none of them.
    """
    names = _present(ds, "attention_entropy", "hdi", "head_jsd")
    spread = [name for name in names if name != "attention_entropy"]
    figure = new_figure(theme, 6.2, 2.7)
    panels = list(figure.subplots(1, ("attention_entropy" in names) + bool(spread), squeeze=False)[0])
    if "attention_entropy" in names:
        axes = panels.pop(0)
        dress(
            axes,
            theme,
            "Attention entropy by layer",
            "layer",
            _label(ds, "attention_entropy", "attention entropy"),
        )
        heads = _layers(ds["attention_entropy"]).mean(("prompt", "step")).transpose("head", "layer")
        layers, values = _columns(heads.values, heads["layer"].values)
        _band(axes, layers, values, theme.first, over="heads")
        axes.set_ylim(bottom=0)
        legend(axes, theme)
        _layer_axis(axes, ds)
    if spread:
        axes = panels[0]
        dress(axes, theme, "Head dispersion by layer", "layer", "dispersion (nats)")
        styles = {
            "hdi": (theme.first, "HDI (sd of entropies)"),
            "head_jsd": (theme.second, "Jensen–Shannon divergence"),
        }
        for name in spread:
            means = _layers(ds[name]).mean(("prompt", "step"))
            color, label = styles[name]
            axes.plot(means["layer"], means, color=color, linewidth=1.8, marker="o", markersize=3, label=label)
        axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
        legend(axes, theme)
        _layer_axis(axes, ds)
    return figure


def lens_profile(ds: xr.Dataset, theme: Theme = LIGHT) -> Figure:
    """Lens entropy, varentropy and KL(final ‖ lens) by layer: mean and 10–90 % band over all tokens.

    Args:
      ds: a dataset with `lens_entropy`, `lens_varentropy` or `lens_kl`.
      theme: the colours.

    Raises:
      ValueError: it has none of them.
    """
    names = _present(ds, "lens_entropy", "lens_varentropy", "lens_kl")
    titles = {
        "lens_entropy": "Lens entropy",
        "lens_varentropy": "Lens varentropy",
        "lens_kl": "KL(final ‖ lens)",
    }
    figure = new_figure(theme, 6.2, 2.5)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        dress(axes, theme, titles[name], "layer", ds[name].attrs["units"])
        tokens = _layers(ds[name]).transpose("prompt", "step", "layer")
        layers, values = _columns(tokens.values.reshape(-1, tokens.sizes["layer"]), tokens["layer"].values)
        _band(axes, layers, values, theme.first, over="tokens")
        axes.set_ylim(bottom=0)
        _layer_axis(axes, ds)
    panels[-1].set_ylim(0, 1.35 * panels[-1].get_ylim()[1])
    legend(panels[-1], theme)
    return figure


FIGURES: dict[str, tuple[Callable[[xr.Dataset, Theme], Figure], tuple[str, ...]]] = {
    "entropy_steps": (entropy_steps, ("entropy", "varentropy")),
    "attention_map": (attention_map, ("attention_entropy", "attention_entropy_normalized")),
    "layer_profile": (layer_profile, ("attention_entropy", "hdi", "head_jsd")),
    "lens_profile": (lens_profile, ("lens_entropy", "lens_varentropy", "lens_kl")),
}


def figures(ds: xr.Dataset, theme: Theme = LIGHT) -> dict[str, Figure]:
    """Every figure that the dataset has a metric for, by name."""
    return {
        name: draw(ds, theme)
        for name, (draw, needs) in FIGURES.items()
        if ds.sizes["step"] and any(metric in ds for metric in needs)
    }


def write_plots(ds: xr.Dataset, directory: str | Path) -> list[Path]:
    """Writes each figure as `<name>.png` into the directory, made if need be, and returns their paths.

    Args:
      ds: what `Trace.to_xarray()` gives.
      directory: where to; files of the same names are replaced.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures(ds).items():
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=200, facecolor=figure.get_facecolor())
    return paths


def _present(ds: xr.Dataset, *names: str) -> list[str]:
    found = [name for name in names if name in ds]
    if not found:
        raise ValueError(f"the dataset has none of {', '.join(names)}: trace again with their group turned on")
    return found


def _label(ds: xr.Dataset, name: str, text: str = "") -> str:
    return f"{text or name} ({ds[name].attrs['units']})"


def _layers(array: xr.DataArray) -> xr.DataArray:
    return array.sel(layer=slice(1, None))


def _layer_axis(axes: Axes, ds: xr.Dataset) -> None:
    axes.set_xlim(0.5, ds["layer"].values[-1] + 0.5)
    axes.xaxis.set_major_locator(whole_numbers())


def _columns(values: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The columns of [samples, x] that hold any number, and their x."""
    keep = np.isfinite(values).any(0)
    return x[keep], values[:, keep]


def _band(
    axes: Axes, x: np.ndarray, values: np.ndarray, color: str, median: bool = False, over: str = "prompts"
) -> None:
    marker = {"marker": "o", "markersize": 3} if len(x) <= 40 else {}
    low, middle, high = np.nanquantile(values, [BAND[0], 0.5, BAND[1]], axis=0)
    axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0, label=f"10–90 % of {over}")
    axes.plot(x, np.nanmean(values, 0), color=color, linewidth=1.8, label="mean", **marker)
    if median:
        axes.plot(x, middle, color=color, linewidth=1.1, linestyle=(0, (3, 2)), label="median")
