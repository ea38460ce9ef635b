"""Intervals from resampling: of rows, of whole groups of rows, of blocks of a time series."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jaxtrace.errors import StudyError


@dataclass(frozen=True)
class Estimate:
    """A number and how far it can be trusted.

    Attributes:
      value: the estimate.
      low, high: ends of its interval; NaN where there are too few units for one.
      n: how many units it rests on: rows, or groups of rows where whole groups were resampled.
    """

    value: float
    low: float
    high: float
    n: int

    def columns(self, name: str) -> dict[str, float]:
        """What a line of a table has of it: name, name_low and name_high."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def bootstrap(
    statistic: Callable[..., float],
    *columns: ArrayLike,
    groups: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """A statistic of some rows with its percentile interval (Efron and Tibshirani 1993, ch. 13).

    Args:
      statistic: takes the columns, returns a number; NaN where it is undefined, and such resamples are left out.
      columns: arrays [rows, …] of equal length.
      groups: [rows], the group (such as the prompt) of each row. Rows of a group stay together: groups are drawn, not
        rows. Without it each row is one of its own.
      seed: of the draws.
      resamples: how many.
      level: the probability that the interval is to have.

    Returns:
      The statistic of all rows, its interval, and the number of groups.

    Raises:
      StudyError: there are no rows.
    """
    arrays = [np.asarray(column) for column in columns]
    if not len(arrays[0]):
        raise StudyError("no rows to take a statistic of; give traces that have some")
    of = np.arange(len(arrays[0])) if groups is None else np.asarray(groups)
    value = float(statistic(*arrays))
    values = [statistic(*(array[rows] for array in arrays)) for rows in draws(of, seed, resamples)]
    return interval(value, values, len(np.unique(of)), level)


def block_bootstrap(
    statistic: Callable[[np.ndarray], float],
    series: ArrayLike,
    block: int,
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """A statistic of a stationary series with its interval from moving blocks (Künsch 1989).

    Args:
      statistic: takes an array [steps, …], returns a number.
      series: [steps, …], in order of time.
      block: steps that stay together; of the order of the time over which they depend on each other.
      seed, resamples, level: as for `bootstrap`.

    Returns:
      The statistic of the series, its interval, and the number of steps.

    Raises:
      StudyError: the series is shorter than a block.
    """
    steps = np.asarray(series)
    values = [statistic(steps[rows]) for rows in moving_blocks(len(steps), block, seed, resamples)]
    return interval(float(statistic(steps)), values, len(steps), level)


def interval(value: float, values: ArrayLike, n: int, level: float = 0.95) -> Estimate:
    """An estimate whose interval is between quantiles of resampled values [resamples]; n is its number of units."""
    found = np.asarray(values, float)
    found = found[np.isfinite(found)]
    if n < 2 or not found.size:
        return Estimate(value, np.nan, np.nan, n)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), n)


def draws(groups: np.ndarray, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Row numbers of each resample: as many groups as there are, drawn with replacement, each with all its rows."""
    rng = np.random.default_rng(seed)
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order, starts = np.argsort(group, kind="stable"), np.cumsum(sizes) - sizes
    for _ in range(resamples):
        drawn = rng.integers(len(sizes), size=len(sizes))
        taken = sizes[drawn]
        ends = np.cumsum(taken)
        yield order[np.arange(ends[-1]) + np.repeat(starts[drawn] - (ends - taken), taken)]


def moving_blocks(steps: int, block: int, seed: int, resamples: int) -> np.ndarray:
    """Step numbers [resamples, steps]: blocks that begin anywhere, end to end, cut to the series' length.

    Raises:
      StudyError: the series is shorter than a block.
    """
    if not 1 <= block <= steps:
        raise StudyError(f"blocks of {block} of a series of {steps} steps; give a block of 1 to {steps}")
    rng = np.random.default_rng(seed)
    starts = rng.integers(steps - block + 1, size=(resamples, -(-steps // block)))
    return (starts[:, :, None] + np.arange(block)).reshape(resamples, -1)[:, :steps]
