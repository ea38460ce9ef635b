"""Intervals from resampling: of rows, of whole groups of rows, of blocks of a time series."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike

from jaxtrace.errors import StudyError


@dataclass(frozen=True)
class Estimate:
    """Number with its interval.

    Attributes:
      value: estimate.
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
