"""Calibration: how far predicted probabilities are from observed shares."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from jaxtrace.statistics.intervals import Estimate, Resampling, bootstrap

BINS = 20


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS, **settings: Unpack[Resampling]
) -> Estimate:
    """Return the mean over rows of |share of true rows − mean probability| in the row's bin (Naeini et al. 2015).

    A finite number of rows gives an error above 0 even for exact probabilities, and resampling adds to it: the interval
    shows the estimate's spread and cannot test whether the error is 0.

    Args:
      labels: [rows], booleans or 0 and 1.
      probabilities: [rows], probability in 0 … 1 that the label is true.
      bins: number of bins of equal width.

    Raises:
      StudyError: no rows.
    """

    def error(labels: np.ndarray, probabilities: np.ndarray) -> float:
        return float(np.abs(np.bincount(_bin(probabilities, bins), labels - probabilities)).sum() / len(labels))

    return bootstrap(error, np.asarray(labels, float), np.asarray(probabilities, float), bounds=(0.0, 1.0), **settings)


def calibration_curve(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> pd.DataFrame:
    """Return the share of true rows by probability, one row per bin that is not empty.

    Arguments are as for `expected_calibration_error`.

    Returns:
      Columns probability (mean in the bin), accuracy with its 95 % Wilson interval accuracy_low and accuracy_high
      (which treats rows as independent), and n.
    """
    labels, probabilities = np.asarray(labels, float), np.asarray(probabilities, float)
    bin_of_row = _bin(probabilities, bins)
    rows = []
    for number in np.unique(bin_of_row):
        inside = bin_of_row == number
        n, true = int(inside.sum()), int(labels[inside].sum())
        low, high = binomtest(true, n).proportion_ci(method="wilson")
        rows.append((probabilities[inside].mean(), true / n, low, high, n))
    return pd.DataFrame(rows, columns=["probability", "accuracy", "accuracy_low", "accuracy_high", "n"])


def _bin(probabilities: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((probabilities * bins).astype(int), bins - 1)
