"""Trends of a series: slopes with intervals, and a test for a monotonic trend."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau, theilslopes

from jaxtrace.errors import StudyError
from jaxtrace.statistics.intervals import Estimate, interval, moving_blocks


def ols_slope(y: ArrayLike, x: ArrayLike, *, block: int, seed: int = 0, resamples: int = 1000) -> Estimate:
    """Return the least-squares slope of y on x, with an interval from moving blocks of the residuals (Künsch 1989).

    x is fixed. Residuals, scaled by √(n / (n − 2)) because two parameters are fitted, are drawn in blocks and added to
    the line.

    Args:
      y: [n], finite values in order of time.
      x: [n], not all equal.
      block: number of neighbouring residuals that stay together.

    Raises:
      StudyError: fewer than three values, or fewer than a block.
    """
    y, x = _series(y, x)
    centred = x - x.mean()
    weights = centred / (centred @ centred)
    slope = float(weights @ y)
    residuals = (y - y.mean() - slope * centred) * np.sqrt(len(y) / (len(y) - 2))
    resampled = residuals[moving_blocks(len(y), block, seed, resamples)]
    return interval(slope, slope + resampled @ weights, len(y))


def theil_sen(y: ArrayLike, x: ArrayLike) -> Estimate:
    """Return the median slope between all pairs of points, with Sen's 95 % interval (1968); assumes independence.

    Arguments and errors are as for `ols_slope`.
    """
    y, x = _series(y, x)
    slope, _, low, high = map(float, theilslopes(y, x))
    return Estimate(slope, low, high, len(y))


def mann_kendall(y: ArrayLike) -> float:
    """Return the two-sided p-value of Kendall's τ of a series [n] with time; 1 for a constant series.

    Raises:
      StudyError: fewer than three values.
    """
    y, time = _series(y, np.arange(len(np.asarray(y))))
    _, p = map(float, kendalltau(time, y))
    return 1.0 if np.ptp(y) == 0 else p


def _series(y: ArrayLike, x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.asarray(y, float), np.asarray(x, float)
    if len(y) < 3:
        raise StudyError(f"a trend of {len(y)} values; give a series of at least three")
    return y, x
