"""Quality of scores that tell right rows from wrong ones, all measured on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jaxtrace.estimators.evaluation import measures, same_length
from jaxtrace.statistics.intervals import Estimate, Resampling, bootstrap, estimate_columns
from jaxtrace.statistics.ranking import area_under_roc


@dataclass(frozen=True)
class ScoredRows:
    """Labelled rows and their scores.

    Attributes:
      labels: [rows] booleans, true where right.
      groups: [rows], group that each row is held out with.
      lengths: [rows], number of tokens of the answer, or up to the token.
      scores: name → [rows]; a higher score means more likely right.
      probabilities: name → [rows], probability of being right.
    """

    labels: np.ndarray
    groups: np.ndarray
    lengths: np.ndarray
    scores: Mapping[str, np.ndarray]
    probabilities: Mapping[str, np.ndarray]


def measure_scores(scored: ScoredRows, baseline: str, *, seed: int = 0, resamples: int = 1000) -> pd.DataFrame:
    """Measure every score, with intervals over groups.

    Args:
      baseline: name of the score that the others are compared with.

    Returns:
      A row per score, best AUROC first. Each measure x has an interval x_low to x_high: auroc; auroc_gain, the paired
      difference from the baseline's AUROC; auroc_same_length and its gain, after ln(length) is regressed out; auprc;
      prr, the prediction–rejection ratio; risk, its mean over coverages; ece, the expected calibration error (20 bins).
      n is the number of rows, groups the number of groups.
    """
    labels = scored.labels
    settings: Resampling = {"groups": scored.groups, "seed": seed, "resamples": resamples}
    residuals = {name: same_length(score, scored.lengths) for name, score in scored.scores.items()}

    def gain(right: np.ndarray, score: np.ndarray, reference: np.ndarray) -> float:
        return area_under_roc(right, score) - area_under_roc(right, reference)

    def gained(score: np.ndarray, reference: np.ndarray) -> Estimate:
        return bootstrap(gain, labels, score, reference, strata=labels, bounds=(-1.0, 1.0), **settings)

    rows = []
    for name, score in scored.scores.items():
        estimates = {
            **measures(labels, score, scored.probabilities[name], scored.lengths, **settings),
            "auroc_gain": gained(score, scored.scores[baseline]),
            "auroc_same_length_gain": gained(residuals[name], residuals[baseline]),
        }
        counts = {"n": len(labels), "groups": len(np.unique(scored.groups))}
        rows.append({"score": name, **estimate_columns(estimates), **counts})
    return pd.DataFrame(rows).sort_values("auroc", ascending=False, ignore_index=True)
