"""Pictures of the dynamics of traces, one row or panel per model."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxtrace.figures.theme import Theme, colour_bar, dress, fill_band, label_gaps, legend, new_figure, whole_numbers
from jaxtrace.studies.dynamics.token_tables import TokenTables

BINS = 20  # bins of relative position
BAND = (0.1, 0.9)


def positions_figure(flat: TokenTables, theme: Theme) -> Figure:
    """Draw output entropy along relative position: mean over prompts and the 10–90 % band, one panel per model."""
    models = flat.models
    figure = new_figure(theme, 6.2, 0.5 + 1.9 * len(models))
    panels = figure.subplots(len(models), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, model in zip(panels, models, strict=True):
        dress(axes, theme, model, y="entropy (nats)", x="relative position" if axes is panels[-1] else "")
        by_bin = _by_position(flat.of_model(model).tokens)
        centres = (by_bin.columns.to_numpy() + 0.5) / BINS
        low, high = by_bin.quantile(BAND[0]), by_bin.quantile(BAND[1])
        axes.fill_between(centres, low, high, color=theme.first, alpha=0.18, linewidth=0, label="10–90 % of prompts")
        axes.plot(centres, by_bin.mean(), color=theme.first, linewidth=1.8, label="mean over prompts")
        axes.set_xlim(0, 1)
    panels[0].set_ylim(bottom=0)
    legend(panels[0], theme)
    return figure


def drift_figure(frame: pd.DataFrame, theme: Theme) -> Figure:
    """Draw the drift of each measure of attention entropy with its interval: one panel per model, first line on top.

    Args:
      frame: model, metric, drift, drift_low, drift_high.
    """
    models = list(frame["model"].unique())
    figure = new_figure(theme, 6.2, 0.6 + 1.4 * len(models))
    for axes, model in zip(figure.subplots(len(models), 1, squeeze=False)[:, 0], models, strict=True):
        rows = frame[frame["model"] == model][::-1]
        dress(axes, theme, model, "late − early (nats; a share for attention_entropy_normalized)")
        axes.axvline(0, color=theme.faint, linewidth=0.8, linestyle=(0, (3, 2)))
        ends = np.array([rows["drift"] - rows["drift_low"], rows["drift_high"] - rows["drift"]])
        ends = np.nan_to_num(ends).clip(0)  # an interval from few resamples may lie beside its mean
        axes.errorbar(rows["drift"], range(len(rows)), xerr=ends, fmt="o", color=theme.first, capsize=3)
        axes.set_yticks(range(len(rows)), rows["metric"])
    return figure


def layers_figure(flat: TokenTables, theme: Theme) -> Figure:
    """Draw attention entropy and head dispersion by layer: mean over prompts and 10–90 % band, one row per model."""
    models = flat.models
    figure = new_figure(theme, 6.2, 0.5 + 2.1 * len(models))
    rows = figure.subplots(len(models), 2, squeeze=False)
    labels = {"attention_entropy": "attention entropy (nats)", "hdi": "head dispersion"}
    for panels, model in zip(rows, models, strict=True):
        layers = flat.of_model(model).layers
        for axes, (name, label) in zip(panels, labels.items(), strict=True):
            dress(axes, theme, model, x="layer", y=label)
            grouped = layers.groupby("layer")[name]
            mean, low, high = grouped.mean(), grouped.quantile(BAND[0]), grouped.quantile(BAND[1])
            fill_band(axes, mean.index, low, high, color=theme.first, alpha=0.18, label="10–90 %")
            axes.plot(mean.index, mean, color=theme.first, linewidth=1.8, marker="o", markersize=3, label="mean")
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(whole_numbers())
            if label_gaps(axes, mean.index, mean):
                legend(axes, theme)
    legend(rows[0, 0], theme)
    return figure


def correlations_figure(frame: pd.DataFrame, theme: Theme) -> Figure:
    """Draw correlations of token features, one panel per model; a dot marks an interval that contains 0.

    Args:
      frame: model, x, y, r, r_low, r_high.
    """
    models = list(frame["model"].unique())
    names = list(dict.fromkeys((*frame["x"], *frame["y"])))
    size = 1.8 + 0.36 * len(names)
    figure = new_figure(theme, size + 0.6, size * len(models))
    for axes, model in zip(figure.subplots(len(models), 1, squeeze=False)[:, 0], models, strict=True):
        dress(axes, theme, model)
        axes.grid(False)
        matrix = np.eye(len(names))
        for pair in frame[frame["model"] == model].itertuples():
            i, j = names.index(pair.x), names.index(pair.y)
            matrix[i, j] = matrix[j, i] = pair.r
            if not (pair.r_low > 0 or pair.r_high < 0):
                axes.plot([i, j], [j, i], ".", color="black", markersize=4)  # such cells are nearly white
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        colour_bar(axes, theme, image)
    return figure


def _by_position(tokens: pd.DataFrame) -> pd.DataFrame:
    """Return the mean entropy of each prompt (rows) in each bin of relative position (columns); NaN without a step."""
    last = tokens.groupby("prompt")["step"].transform("max")
    bins = np.minimum(((tokens["step"] - 0.5) / last * BINS).astype(int), BINS - 1)
    means = tokens["entropy"].groupby([tokens["prompt"], bins]).mean()
    return means.unstack().sort_index(axis=1)
