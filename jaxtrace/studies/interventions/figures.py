"""Figure of the interventions study."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxtrace.figures.theme import Theme, dress, legend, new_figure, whole_numbers


def accuracy_figure(table: pd.DataFrame, chance: Mapping[str, float], theme: Theme) -> Figure:
    """Draw accuracy by number of ablated layers: two panels per model, with and without the edges.

    Args:
      table: model, kind, k, edges, accuracy, accuracy_low, accuracy_high.
      chance: model → accuracy of guessing.
    """
    figure = new_figure(theme, 8.4, 3.0 * len(chance))
    grid = figure.subplots(len(chance), 2, squeeze=False, sharey=True)
    colors = {"expansion": theme.first, "pruning": theme.second, "random": theme.faint}
    for (label, guess), panels in zip(chance.items(), grid, strict=True):
        whole = table[(table.model == label) & (table.kind == "none")].accuracy.iloc[0]
        for edges, axes in zip((True, False), panels, strict=True):
            axes.axhline(whole, color=theme.ink, linestyle="--", linewidth=0.8)
            axes.axhline(guess, color=theme.faint, linestyle=":", linewidth=1)
            for shift, (kind, color) in enumerate(colors.items()):
                rows = table[(table.model == label) & (table.kind == kind) & (table.edges == edges)]
                above, below = rows.accuracy_high - rows.accuracy, rows.accuracy - rows.accuracy_low
                axes.errorbar(
                    rows.k + 0.08 * (shift - 1),
                    rows.accuracy,
                    yerr=np.array([below, above]).clip(0),
                    color=color,
                    label=kind,
                    marker="o",
                    markersize=4,
                    capsize=2,
                )
            title = "any layer" if edges else "not layers 1 and L"
            dress(axes, theme, f"{label}: {title}", "layers skipped", "accuracy")
            axes.xaxis.set_major_locator(whole_numbers())
        legend(panels[0], theme)
    return figure
