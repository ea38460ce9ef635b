"""Whether probabilities mean what they say."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from jaxtrace.statistics.intervals import Estimate, bootstrap

BINS = 20


def expected_calibration_error(
    labels: ArrayLike,
    probabilities: ArrayLike,
    bins: int = BINS,
    *,
    groups: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Estimate:
    """Mean over rows of |share of true rows − mean probability| in the row's bin (Naeini et al. 2015).

    It is above 0 for a finite number of rows even where probabilities are exact, and resampling adds to that: the
    interval says how far it may be off, not whether it is 0.

    Args:
      labels: [rows] of booleans or 0 and 1.
      probabilities: [rows] in 0 … 1, of the label being true.
      bins: of equal width.
      groups: [rows], such as prompts, that are resampled as a whole.
      seed, resamples: of the interval.

    Raises:
      StudyError: there are no rows.
    """

    def error(labels: np.ndarray, probabilities: np.ndarray) -> float:
        return float(np.abs(np.bincount(_bin(probabilities, bins), labels - probabilities)).sum() / len(labels))

    columns = np.asarray(labels, float), np.asarray(probabilities, float)
    return bootstrap(error, *columns, groups=groups, seed=seed, resamples=resamples)


def calibration_curve(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> pd.DataFrame:
    """Share of true rows by probability: a row per bin that is not empty.

    Args are those of `expected_calibration_error`.

    Returns:
      Columns probability (mean in the bin), accuracy with its 95 % Wilson interval accuracy_low and accuracy_high
      (which takes rows for independent), and n.
    """
    labels, probabilities = np.asarray(labels, float), np.asarray(probabilities, float)
    of = _bin(probabilities, bins)
    rows = []
    for one in np.unique(of):
        inside = of == one
        n, true = int(inside.sum()), int(labels[inside].sum())
        low, high = binomtest(true, n).proportion_ci(method="wilson")
        rows.append((probabilities[inside].mean(), true / n, low, high, n))
    return pd.DataFrame(rows, columns=["probability", "accuracy", "accuracy_low", "accuracy_high", "n"])


def _bin(probabilities: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((probabilities * bins).astype(int), bins - 1)
