"""Figures of the samplers study."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxtrace.errors import visible
from jaxtrace.figures.theme import QUADRANT_COLOURS, Theme, dress, new_figure
from jaxtrace.schema import QUADRANTS


def entropy_figure(table: pd.DataFrame, theme: Theme) -> Figure:
    """Draw mean entropy with its interval: one line per model and sampler."""
    figure = new_figure(theme, 7.0, 1.0 + 0.35 * len(table))
    axes, places = figure.subplots(), np.arange(len(table))[::-1]
    ends = np.array([table.entropy - table.entropy_low, table.entropy_high - table.entropy]).clip(0)
    axes.errorbar(table.entropy, places, xerr=ends, fmt="o", color=theme.first, capsize=3)
    axes.set_yticks(places, _labels(table), parse_math=False)
    dress(axes, theme, "Entropy by sampler", "mean entropy (nats)")
    return figure


def quadrants_figure(table: pd.DataFrame, theme: Theme) -> Figure:
    """Draw shares of steps by quadrant: one bar per model and sampler that decides by quadrant."""
    shares = table.pivot_table(index=["model", "sampler"], columns="quadrant", values="share", sort=False)
    figure = new_figure(theme, 7.0, 1.6 + 0.4 * len(shares))
    axes, places, start = figure.subplots(), np.arange(len(shares))[::-1], np.zeros(len(shares))
    for quadrant, colour in zip(QUADRANTS, QUADRANT_COLOURS, strict=True):
        axes.barh(places, shares[quadrant], left=start, color=colour, label=quadrant, height=0.6)
        start += shares[quadrant].to_numpy()
    axes.set_yticks(places, _labels(shares.reset_index()), parse_math=False)
    axes.set_xlim(0, 1)
    dress(axes, theme, "Quadrants of the steps", "share of steps")
    axes.legend(
        frameon=False, fontsize=8, labelcolor=theme.ink, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.3)
    )
    return figure


def _labels(table: pd.DataFrame) -> list[str]:
    one_model = table.model.nunique() == 1
    return [
        visible(name if one_model else f"{model}: {name}")
        for model, name in zip(table.model, table.sampler, strict=True)
    ]
