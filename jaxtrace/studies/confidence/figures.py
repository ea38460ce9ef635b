"""Pictures of a confidence: its ranking, its calibration, and the risk among the answers that it keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from jaxtrace.figures.theme import Theme, legend, new_panel
from jaxtrace.statistics.calibration import calibration_curve
from jaxtrace.statistics.ranking import risk_coverage
from jaxtrace.studies._shared.result import Picture
from jaxtrace.studies.confidence.evaluate import ScoredRows

BINS = 10


def pictures(measured: pd.DataFrame, scored: ScoredRows, shown: Sequence[str]) -> dict[str, Picture]:
    """Return pictures of every score's AUROC, and of the calibration and risk–coverage curves of some.

    Args:
      shown: names of the scores whose curves are drawn, three at most.
    """

    few = bool(measured["auroc_few"].any())

    def draw_ranking(theme: Theme) -> Figure:
        rows = measured[::-1]
        title, x = "Separation of right from wrong answers", "AUROC, with its 95 % interval"
        figure, axes = new_panel(theme, 6.2, 1.0 + 0.22 * len(rows), title, x)
        cells = (rows[column] for column in ("score", "auroc", "auroc_low", "auroc_high"))
        for place, (name, value, low, high) in enumerate(zip(*cells, strict=True)):
            color = theme.first if name in shown else theme.faint
            axes.plot([low, high], [place, place], color=color, linewidth=1.4)
            axes.plot(value, place, color=color, marker="o", markersize=4)
        axes.axvline(0.5, color=theme.faint, linewidth=0.8, linestyle=(0, (3, 2)))
        axes.set_yticks(range(len(rows)), rows["score"])
        return figure

    def draw_calibration(theme: Theme) -> Figure:
        x, y = "predicted probability", "share of right answers"
        figure, axes = new_panel(theme, 3.8, 3.6, "Calibration", x, y)
        axes.plot([0, 1], [0, 1], color=theme.faint, linewidth=0.8, linestyle=(0, (3, 2)))
        for name, color in _colours(shown, theme):
            curve = calibration_curve(scored.labels, scored.probabilities[name], BINS)
            spread = (curve["accuracy"] - curve["accuracy_low"], curve["accuracy_high"] - curve["accuracy"])
            axes.errorbar(
                *(curve["probability"], curve["accuracy"], np.array(spread)),
                **{"color": color, "label": name, "marker": "o", "markersize": 3, "linewidth": 1.2},
            )
        legend(axes, theme)
        return figure

    def draw_risk(theme: Theme) -> Figure:
        x, y = "share of answers kept", "share of kept answers that are wrong"
        figure, axes = new_panel(theme, 4.6, 3.2, "Risk by coverage", x, y)
        for name, color in (*_colours(shown, theme), ("oracle", theme.faint)):
            score = scored.labels if name == "oracle" else scored.scores[name]
            coverage, risk, _ = risk_coverage(scored.labels, score)
            axes.plot(coverage, risk, color=color, linewidth=1.6, label=name)
        axes.set_ylim(bottom=0)
        legend(axes, theme)
        return figure

    return {
        "auroc": Picture(
            draw_ranking,
            "AUROC of every score; the dashed line is chance, and colours mark the scores of the other pictures.",
            few,
        ),
        "calibration": Picture(
            draw_calibration,
            f"Share of right answers by predicted probability, {BINS} bins, 95 % Wilson intervals.",
            few,
        ),
        "risk_coverage": Picture(
            draw_risk,
            "Share of wrong answers among the kept ones, as the lowest scores are excluded, beside an oracle's.",
            few,
        ),
    }


def _colours(shown: Sequence[str], theme: Theme) -> list[tuple[str, str]]:
    return list(zip(shown, (theme.first, theme.second, theme.ink), strict=False))
