"""Trends of a series: slopes with intervals, and a test for a monotonic trend."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jaxtrace.errors import StudyError
from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.intervals import FEW, TAIL, Estimate, interval, moving_blocks


def ols_slope(y: ArrayLike, x: ArrayLike, *, block: int, seed: int = 0, resamples: int = 1000) -> Estimate:
    """Return the least-squares slope of y on x, with an interval from moving blocks of the residuals (Künsch 1989).

    x is fixed. Residuals, scaled by √(n / (n − 2)) because two parameters are fitted, are drawn in blocks and added to
    the line. Fewer than `FEW` values get a t interval with the standard deviation of the resampled slopes.

    Args:
      y: [n], finite values in order of time.
      x: [n], not all equal.
      block: number of neighbouring residuals that stay together.

    Raises:
      StudyError: fewer than three values, or fewer than a block; or a value is not finite.
    """
    y, x = _series(y, x)
    centred = x - x.mean()
    weights = centred / (centred @ centred)
    slope = float(weights @ y)
    residuals = (y - y.mean() - slope * centred) * np.sqrt(len(y) / (len(y) - 2))
    resampled = slope + residuals[moving_blocks(len(y), block, seed, resamples)] @ weights
    if len(y) >= FEW:
        return interval(slope, resampled, len(y))
    half = float(stats.t.isf(TAIL, len(y) - 2) * resampled.std())
    return Estimate(slope, slope - half, slope + half, len(y))


def theil_sen(y: ArrayLike, x: ArrayLike) -> Estimate:
    """Return the median slope between all pairs of points, with Sen's 95 % interval (1968).

    Its variance is that of `mann_kendall`. An end that it puts beyond the largest or smallest slope is infinite.
    Arguments and errors are as for `ols_slope`.
    """
    y, x = _series(y, x)
    i, j = np.triu_indices(len(y), 1)
    i, j = i[x[i] != x[j]], j[x[i] != x[j]]
    slopes = np.sort((y[j] - y[i]) / (x[j] - x[i]))
    reach = float(stats.norm.isf(TAIL) * np.sqrt(_score_variance(y)))
    padded = np.concatenate([[-np.inf], slopes, [np.inf]])
    ranks = np.clip(np.round([(len(slopes) - reach) / 2, (len(slopes) + reach) / 2 + 1]), 0, len(slopes) + 1)
    low, high = padded[ranks.astype(int)].tolist()
    return Estimate(float(np.median(slopes)), low, high, len(y))


def mann_kendall(y: ArrayLike) -> float:
    """Return the two-sided p-value of the Mann–Kendall test for a trend of a series [n]; 1 for a constant series.

    The variance is multiplied by n / n*, the ratio of the steps to the effective number of independent ones, for a
    first-order autoregression of the series without its linear trend (Yue and Wang 2004). The lag-1 autocorrelation is
    corrected for its bias, (2 + 4r) / n (Kendall 1954), and counts as 0 if it is negative.

    Raises:
      StudyError: fewer than three values, or a value is not finite.
    """
    y, _ = _series(y, np.arange(len(np.asarray(y))))
    if np.ptp(y) == 0:
        return 1.0
    i, j = np.triu_indices(len(y), 1)
    score = float(np.sign(y[j] - y[i]).sum())
    z = (abs(score) - 1) / np.sqrt(_score_variance(y))  # 1: correction for continuity
    return float(min(1.0, 2 * stats.norm.sf(z)))


def _score_variance(y: np.ndarray) -> float:
    """Return the variance of Kendall's score of a series without a trend, with ties and autocorrelation."""
    n, ties = len(y), np.unique(y, return_counts=True)[1]
    independent = (n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
    lags = np.arange(1, n)
    return float(independent * (1 + 2 * ((1 - lags / n) * _autocorrelation(y) ** lags).sum()))


def _autocorrelation(y: np.ndarray) -> float:
    """Return the lag-1 autocorrelation of a series without its linear trend, in 0 … 0.99."""
    n, residuals = len(y), residualize(y, np.arange(len(y)))
    squares = float(residuals @ residuals)
    if n < 5 or squares <= 1e-18 * float((y - y.mean()) @ (y - y.mean())):
        return 0.0
    return float(np.clip((n * (residuals[1:] @ residuals[:-1]) / squares + 2) / (n - 4), 0.0, 0.99))


def _series(y: ArrayLike, x: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.asarray(y, float), np.asarray(x, float)
    if len(y) < 3:
        raise StudyError(f"a trend of {len(y)} values; give a series of at least three")
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        raise StudyError("a trend of values that are not all finite; exclude steps without a value")
    return y, x
