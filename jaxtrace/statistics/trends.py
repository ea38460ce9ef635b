"""Trends of a series: slopes with intervals, and a test."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau, theilslopes

from jaxtrace.errors import StudyError
from jaxtrace.statistics.intervals import Estimate, interval, moving_blocks


def ols_slope(
    y: ArrayLike, x: ArrayLike, *, block: int, seed: int = 0, resamples: int = 1000, level: float = 0.95
) -> Estimate:
    """Least-squares slope of y on x, with an interval from moving blocks of the residuals (Künsch 1989).

    x stays where it is; residuals, scaled by √(n / (n − 2)) for the two parameters that they were fitted with, are
    drawn in blocks and put back on the line.

    Args:
      y: [n] finite values in order of time.
      x: [n], not all equal.
      block: neighbouring residuals that stay together.
      seed, resamples, level: as for `intervals.bootstrap`.

    Raises:
      StudyError: fewer than three values, or fewer than a block.
    """
    y, x = _series(y, x)
    centred = x - x.mean()
    weights = centred / (centred @ centred)
    slope = float(weights @ y)
    residuals = (y - y.mean() - slope * centred) * np.sqrt(len(y) / (len(y) - 2))
    moved = residuals[moving_blocks(len(y), block, seed, resamples)]
    return interval(slope, slope + moved @ weights, len(y), level)


def theil_sen(y: ArrayLike, x: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Median of the slopes between all pairs of points, with Sen's interval (1968), which takes them for independent.

    Args and errors are those of `ols_slope`.
    """
    y, x = _series(y, x)
    slope, _, low, high = map(float, theilslopes(y, x, alpha=level))
    return Estimate(slope, low, high, len(y))


def mann_kendall(y: ArrayLike) -> float:
    """Two-sided p of the test for a monotonic trend of a series [n] (Kendall's τ with time); 1 for a constant one.

    Raises:
      StudyError: fewer than three values.
    """
    y, time = _series(y, np.arange(len(np.asarray(y))))
    _, p = map(float, kendalltau(time, y))
    return 1.0 if np.ptp(y) == 0 else p


def _series(y: ArrayLike, x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.asarray(y, float), np.asarray(x, float)
    if len(y) < 3:
        raise StudyError(f"a trend of {len(y)} values; give a series of three at least")
    return y, x
