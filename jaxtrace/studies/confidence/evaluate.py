"""How good scores of right and wrong rows are, beside each other and on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jaxtrace.statistics.calibration import expected_calibration_error
from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.intervals import bootstrap
from jaxtrace.statistics.ranking import area_under_roc, auprc, auroc, prediction_rejection_ratio, risk_coverage


@dataclass(frozen=True)
class Scored:
    """Rows whose truth is known, and what is said of them.

    Attributes:
      labels: [rows] of booleans, true where right.
      groups: [rows], what each is held out with.
      lengths: [rows], tokens so far, or of the answer.
      scores: name → [rows]; higher says right.
      probabilities: name → [rows], of being right.
    """

    labels: np.ndarray
    groups: np.ndarray
    lengths: np.ndarray
    scores: Mapping[str, np.ndarray]
    probabilities: Mapping[str, np.ndarray]


def measures(scored: Scored, baseline: str, *, seed: int = 0, resamples: int = 1000) -> pd.DataFrame:
    """Every measure of every score, with intervals over groups.

    Args:
      scored: rows of both classes.
      baseline: the score that the others are compared with.
      seed, resamples: of the intervals.

    Returns:
      A row per score, each estimate x with x_low and x_high: auroc; auroc_gain over the baseline's, both of the same
      resampled groups; auroc_same_length, and its gain, of what ln(length) leaves of the scores; auprc; prr, the
      prediction–rejection ratio; risk, the mean over coverages; ece, the expected calibration error (20 bins). n rows
      of so many groups.
    """
    labels, settings = scored.labels, {"groups": scored.groups, "seed": seed, "resamples": resamples}
    alike = {name: same_length(score, scored.lengths) for name, score in scored.scores.items()}

    def gain(right: np.ndarray, one: np.ndarray, other: np.ndarray) -> float:
        return area_under_roc(right, one) - area_under_roc(right, other)

    rows = []
    for name, score in scored.scores.items():
        found = {
            "auroc": auroc(labels, score, **settings),
            "auroc_gain": bootstrap(gain, labels, score, scored.scores[baseline], **settings),
            "auroc_same_length": auroc(labels, alike[name], **settings),
            "auroc_same_length_gain": bootstrap(gain, labels, alike[name], alike[baseline], **settings),
            "auprc": auprc(labels, score, **settings),
            "prr": prediction_rejection_ratio(labels, score, **settings),
            "risk": bootstrap(lambda right, score: risk_coverage(right, score)[2], labels, score, **settings),
            "ece": expected_calibration_error(labels, scored.probabilities[name], **settings),
        }
        cells = {column: value for measure, one in found.items() for column, value in one.columns(measure).items()}
        rows.append({"score": name, **cells, "n": len(labels), "groups": len(np.unique(scored.groups))})
    return pd.DataFrame(rows).sort_values("auroc", ascending=False, ignore_index=True)


def same_length(score: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """What ln(length) [rows] leaves of a score [rows], rounded so that rows of which nothing is left are ties."""
    left = residualize(score, np.log(lengths))
    return np.round(left / (np.ptp(score) or 1.0), 9)
