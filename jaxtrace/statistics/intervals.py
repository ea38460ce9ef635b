"""Intervals from resampling: of rows, of whole groups of rows, of blocks of a time series."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

from jaxtrace.errors import StudyError


@dataclass(frozen=True)
class Estimate:
    """Number with its interval.

    Attributes:
      low, high: ends of its interval; NaN if there are too few units for one.
      n: number of units: rows, or groups of rows if groups were resampled.
    """

    value: float
    low: float
    high: float
    n: int

    def columns(self, name: str) -> dict[str, float]:
        """Return the cells of a table: name, name_low and name_high."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


class Resampling(TypedDict, total=False):
    """Settings of an interval from resampled rows.

    Attributes:
      groups: [rows], group of each row, such as its prompt. Groups are drawn with all their rows. None makes each row a
        group.
      seed, resamples: seed and number of the resamples; 0 and 1000 by default.
    """

    groups: ArrayLike | None
    seed: int
    resamples: int


def estimate_columns(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """Return the cells of a table for estimates by name."""
    return {key: cell for name, estimate in estimates.items() for key, cell in estimate.columns(name).items()}


def bootstrap(statistic: Callable[..., float], *columns: ArrayLike, **settings: Unpack[Resampling]) -> Estimate:
    """Return a statistic of some rows with its percentile interval (Efron and Tibshirani 1993, ch. 13).

    Args:
      statistic: function from the columns to a number, NaN if it is undefined; such resamples are excluded.
      columns: arrays [rows, …] of equal length.

    Returns:
      The statistic of all rows, its interval, and the number of groups.

    Raises:
      StudyError: no rows.
    """
    arrays = [np.asarray(column) for column in columns]
    if not len(arrays[0]):
        raise StudyError("no rows for a statistic; give traces that have rows of the kind")
    groups = settings.get("groups")
    group = np.arange(len(arrays[0])) if groups is None else np.asarray(groups)
    value = float(statistic(*arrays))
    resampled = resampled_rows(group, settings.get("seed", 0), settings.get("resamples", 1000))
    values = [statistic(*(array[rows] for array in arrays)) for rows in resampled]
    return interval(value, values, len(np.unique(group)))


def interval(value: float, values: ArrayLike, n: int) -> Estimate:
    """Return an estimate with the 95 % interval between quantiles of resampled values; n counts its units."""
    defined = np.asarray(values, float)
    defined = defined[np.isfinite(defined)]
    if n < 2 or not defined.size:
        return Estimate(value, np.nan, np.nan, n)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Estimate(value, float(low), float(high), n)


def resampled_rows(groups: np.ndarray, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Yield the row numbers of each resample: groups drawn with replacement, each with all its rows."""
    rng = np.random.default_rng(seed)
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order, starts = np.argsort(group, kind="stable"), np.cumsum(sizes) - sizes
    for _ in range(resamples):
        drawn = rng.integers(len(sizes), size=len(sizes))
        drawn_sizes = sizes[drawn]
        ends = np.cumsum(drawn_sizes)
        yield order[np.arange(ends[-1]) + np.repeat(starts[drawn] - (ends - drawn_sizes), drawn_sizes)]


def moving_blocks(steps: int, block: int, seed: int, resamples: int) -> np.ndarray:
    """Return step numbers [resamples, steps]: blocks from random starts, joined and cut to the series' length.

    Raises:
      StudyError: the series is shorter than a block.
    """
    if not 1 <= block <= steps:
        raise StudyError(f"blocks of {block} of a series of {steps} steps; give a block of 1 to {steps}")
    rng = np.random.default_rng(seed)
    starts = rng.integers(steps - block + 1, size=(resamples, -(-steps // block)))
    return (starts[:, :, None] + np.arange(block)).reshape(resamples, -1)[:, :steps]


def prompt_means(
    frame: pd.DataFrame, groups: pd.Series, *, seed: int = 0, resamples: int = 1000
) -> dict[str, Estimate]:
    """Return the mean of each column with its interval, as `bootstrap(np.mean, …, groups=…)` gives for one column.

    Args:
      frame: one row per observation; NaN is ignored, column by column.
      groups: prompt of each row; prompts are resampled with all their rows.

    Returns:
      Column → estimate, whose n is the number of prompts with a value.
    """
    values = frame.to_numpy(float)
    _, group = np.unique(groups, return_inverse=True)
    finite = ~np.isnan(values)
    size = int(group.max()) + 1
    sums, counts = (np.zeros((size, values.shape[1])) for _ in range(2))
    np.add.at(sums, group, np.where(finite, values, 0.0))
    np.add.at(counts, group, finite)
    weights = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=resamples)
    means, resampled = _ratio(sums.sum(0), counts.sum(0)), _ratio(weights @ sums, weights @ counts)
    prompts = (counts > 0).sum(0)
    return {name: interval(float(means[i]), resampled[:, i], int(prompts[i])) for i, name in enumerate(map(str, frame))}


def mean_intervals(values: Float[np.ndarray, "answers columns"]) -> pd.DataFrame:
    """Return means of finite values by column, with 95 % t intervals over answers: mean, mean_low, mean_high, n."""
    values = np.where(np.isfinite(values), values, np.nan)
    n, mean = np.isfinite(values).sum(0), finite_mean(values, 0)
    squares = np.nansum((values - mean) ** 2, 0)
    freedom = np.maximum(n - 1, 1)
    half = np.where(n > 1, stats.t.ppf(0.975, freedom) * np.sqrt(squares / freedom / np.maximum(n, 1)), np.nan)
    return pd.DataFrame({"mean": mean, "mean_low": mean - half, "mean_high": mean + half, "n": n})


def finite_mean(values: ArrayLike, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Return the mean over some axes of the values that are finite, float64; NaN where none is."""
    array = np.asarray(values, float)
    finite = np.isfinite(array)
    return _ratio(np.where(finite, array, 0.0).sum(axis), finite.sum(axis))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
