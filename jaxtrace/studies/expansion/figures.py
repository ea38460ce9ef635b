"""Figure of the expansion study."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from jaxtrace.figures.theme import Theme, dress, legend, new_figure, whole_numbers
from jaxtrace.studies._shared.expansions import Expansions


def expansion_figure(measured: Mapping[str, Expansions], theme: Theme) -> Figure:
    """Draw ΔH, candidates and overlaps by layer: one line of three panels per model."""
    figure = new_figure(theme, 9.6, 2.7 * len(measured))
    grid = figure.subplots(len(measured), 3, squeeze=False)
    for (label, expansions), (changes, sizes, overlaps) in zip(measured.items(), grid, strict=True):
        layers = np.arange(expansions.size.shape[1])
        mean, deviation = expansions.change.mean(0), expansions.change.std(0)
        changes.axhline(0, color=theme.faint, linewidth=0.8)
        changes.plot(layers[1:], mean, color=theme.first, marker="o", markersize=3)
        changes.fill_between(layers[1:], mean - deviation, mean + deviation, color=theme.first, alpha=0.2, linewidth=0)
        low, middle, high = np.percentile(expansions.size, [10, 50, 90], axis=0)
        sizes.plot(layers, middle, color=theme.first, marker="o", markersize=3)
        sizes.fill_between(layers, low, high, color=theme.first, alpha=0.2, linewidth=0)
        sizes.set_yscale("log")
        lines = {"|A∩B| / min": expansions.overlap, "Jaccard": expansions.jaccard, "chance": expansions.chance}
        for (name, values), color in zip(lines.items(), (theme.first, theme.second, theme.faint), strict=True):
            overlaps.plot(layers[1:], values.mean(0), color=color, marker="o", markersize=3, label=name)
        dress(changes, theme, label, "layer", "ΔH (nats)")
        dress(sizes, theme, "candidates", "layer", "tokens")
        dress(overlaps, theme, "overlap with the layer before", "layer", "share")
        legend(overlaps, theme)
        for axes in (changes, sizes, overlaps):
            axes.xaxis.set_major_locator(whole_numbers())
    return figure
