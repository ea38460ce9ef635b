"""95 % intervals over units: rows, or whole groups of rows such as all samples of a prompt.

From `FEW` units on, ends are quantiles of resampled values, at levels that make a mean's interval as wide as a t
interval (Hesterberg 2015). Fewer units get a t interval with the jackknife's standard error, which for a mean is the
usual one. A resample whose value is undefined (NaN) is not dropped: it counts as the smallest value at the low end, and
as the largest at the high end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict, Unpack

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

from jaxtrace.errors import StudyError
from jaxtrace.statistics.means import finite_mean, ratio
from jaxtrace.statistics.units import Units

FEW = 10  # an interval over fewer units is a t interval, and is marked
FEW_NOTE = f"* over fewer than {FEW} units (such as prompts): a t interval, weak evidence"
TAIL = 0.025
UNBOUNDED = (-np.inf, np.inf)
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """Number with its interval.

    Attributes:
      low, high: ends of its interval; NaN if there are too few units for one.
      n: number of units: rows, or groups of rows if groups were resampled.
      fewest: number of units in the smallest of the sets that are compared; None for a single set.
    """

    value: float
    low: float
    high: float
    n: int
    fewest: int | None = None

    @property
    def few(self) -> bool:
        """True for fewer than `FEW` units, or fewer in one of the sets that are compared."""
        return (self.n if self.fewest is None else self.fewest) < FEW

    def columns(self, name: str) -> dict[str, float]:
        """Return the cells of a table: name, name_low, name_high, and the mark name_few."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high, f"{name}_few": self.few}


class Draws(TypedDict, total=False):
    """Seed and number of an interval's resamples; 0 and 1000 by default."""

    seed: int
    resamples: int


class Resampling(Draws, total=False):
    """Settings of an interval over rows.

    Attributes:
      groups: [rows], group of each row, such as its prompt. A group is drawn, or removed, with all its rows. None
        makes each row a group.
    """

    groups: ArrayLike | None


def estimate_columns(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """Return the cells of a table for estimates by name."""
    return {key: cell for name, estimate in estimates.items() for key, cell in estimate.columns(name).items()}


def bootstrap(
    statistic: Callable[..., float],
    *columns: ArrayLike,
    strata: ArrayLike | None = None,
    bounds: Bounds = UNBOUNDED,
    **settings: Unpack[Resampling],
) -> Estimate:
    """Return a statistic of some rows with its interval over groups.

    Args:
      statistic: function from the columns to a number, NaN if it is undefined.
      columns: arrays [rows, …] of equal length.
      strata: [rows], sets that keep their numbers of groups in every resample, unless a group is in several.
      bounds: smallest and largest possible value.

    Raises:
      StudyError: no rows.
    """
    return bootstraps(lambda *arrays: (statistic(*arrays),), *columns, strata=strata, bounds=bounds, **settings)[0]


def bootstraps(
    statistics: Callable[..., Sequence[float]],
    *columns: ArrayLike,
    strata: ArrayLike | None = None,
    bounds: Bounds = UNBOUNDED,
    **settings: Unpack[Resampling],
) -> list[Estimate]:
    """Return several statistics of the same rows and resamples, each as `bootstrap` does."""
    arrays = [np.asarray(column) for column in columns]
    if not len(arrays[0]):
        raise StudyError("no rows for a statistic; give traces that have rows of the kind")
    units = Units.of(len(arrays[0]), settings.get("groups"), strata)

    def table(resampled: Iterator[np.ndarray]) -> np.ndarray:
        return np.array([statistics(*(array[rows] for array in arrays)) for rows in resampled], float)

    values = np.array(statistics(*arrays), float)
    if units.fewest < 2:
        return [Estimate(x, np.nan, np.nan, units.n, units.fewest) for x in values.tolist()]
    if units.fewest < FEW:
        without = [table(rows) for rows in units.left_out()]
        estimates = [t_interval(x, *(of[:, i] for of in without), bounds=bounds) for i, x in enumerate(values)]
    else:
        resampled = table(units.drawn(settings.get("seed", 0), settings.get("resamples", 1000)))
        estimates = [interval(x, resampled[:, i], units.n, units.fewest, bounds) for i, x in enumerate(values)]
    return estimates if units.mixed else [exact_at_bound(estimate, bounds) for estimate in estimates]


def interval(
    value: float, resampled: ArrayLike, n: int, fewest: int | None = None, bounds: Bounds = UNBOUNDED
) -> Estimate:
    """Return an estimate with the interval between quantiles of resampled values.

    Args:
      resampled: values of the resamples, possibly infinite; NaN where undefined.
      n, fewest: see `Estimate`.
      bounds: smallest and largest possible value.
    """
    units, resampled = n if fewest is None else fewest, np.asarray(resampled, float)
    if units < 2 or np.isnan(value) or np.isnan(resampled).all():
        return Estimate(float(value), np.nan, np.nan, n, fewest)
    tail = stats.norm.sf(np.sqrt(units / (units - 1)) * stats.t.isf(TAIL, units - 1))
    low, high = (np.where(np.isnan(resampled), end, resampled) for end in UNBOUNDED)
    ends = float(np.quantile(low, tail, method="lower")), float(np.quantile(high, 1 - tail, method="higher"))
    low, high = np.clip(ends, *bounds).tolist()
    return Estimate(float(value), low, high, n, fewest)


def t_interval(value: float, *left_out: ArrayLike, bounds: Bounds = UNBOUNDED) -> Estimate:
    """Return an estimate with a t interval by the jackknife (Efron and Tibshirani 1993, ch. 11).

    Variances of several strata, or of factors such as prompts and seeds, add up; the degrees of freedom are Welch's
    (Satterthwaite 1946).

    Args:
      left_out: for each stratum, the values without each of its units. If one is NaN, there is no interval; if one is
        infinite, the interval is unbounded unless all are equal.
      bounds: smallest and largest possible value.
    """
    arrays = [np.asarray(values, float) for values in left_out]
    sizes = [len(values) for values in arrays]
    n, fewest = sum(sizes), None if len(sizes) == 1 else min(sizes)
    if min(sizes) < 2 or any(np.isnan(values).any() for values in (*arrays, value)):
        return Estimate(float(value), np.nan, np.nan, n, fewest)
    ends = (value, value)
    if any((values != value).any() for values in arrays):
        half = _half_width(arrays)
        ends = (value - half, value + half) if np.isfinite(value) and np.isfinite(half) else UNBOUNDED
    low, high = np.clip(ends, *bounds).tolist()
    return Estimate(float(value), low, high, n, fewest)


def _half_width(left_out: Sequence[np.ndarray]) -> float:
    """Return half the width of the t interval; infinite if a value is."""
    if not all(np.isfinite(values).all() for values in left_out):
        return np.inf
    variances = np.array([(len(values) - 1) * values.var() for values in left_out])
    freedoms = np.array([len(values) - 1 for values in left_out])
    total = variances.sum()
    freedom = total**2 / (variances**2 / freedoms).sum() if total > 0 else freedoms.min()
    return float(stats.t.isf(TAIL, freedom) * np.sqrt(total))


def exact_at_bound(estimate: Estimate, bounds: Bounds) -> Estimate:
    """Return an estimate with Clopper and Pearson's interval (1934) if all units reach a bound, else unchanged.

    The interval is the one of as many successes, not a point.
    """
    least, most = bounds
    if estimate.low != estimate.high or estimate.low not in bounds or not np.isfinite(most - least):
        return estimate
    units = estimate.n if estimate.fewest is None else estimate.fewest
    reach = (most - least) * (1 - TAIL ** (1 / units))
    low, high = (least, least + reach) if estimate.low == least else (most - reach, most)
    return replace(estimate, low=low, high=high)


def resampling_weights(units: int, seed: int, resamples: int) -> Float[np.ndarray, "resamples units"]:
    """Return how often each resample draws each unit; for few units, each resample leaves one unit out."""
    if units < FEW:
        return 1 - np.eye(units)
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=resamples).astype(float)


def weighted_interval(value: float, resampled: ArrayLike, units: int, bounds: Bounds = UNBOUNDED) -> Estimate:
    """Return an estimate with its interval from the values of the resamples of `resampling_weights`."""
    if units < FEW:
        return t_interval(value, resampled, bounds=bounds)
    return interval(value, resampled, units, bounds=bounds)


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
    frame: pd.DataFrame, groups: pd.Series, *, seed: int = 0, resamples: int = 1000, bounds: Bounds = UNBOUNDED
) -> dict[str, Estimate]:
    """Return the mean of each column with its interval, as `bootstrap(np.mean, …, groups=…)` gives for one column.

    Args:
      frame: one row per observation; NaN is ignored, column by column.
      groups: prompt of each row; a prompt is one unit with all its rows.
      bounds: smallest and largest possible value.

    Returns:
      Column → estimate, whose n is the number of prompts with a value.
    """
    sums, counts = _group_sums(frame.to_numpy(float), groups)
    estimates = {}
    for name, total, count in zip(map(str, frame), sums.T, counts.T, strict=True):
        total, count = total[count > 0], count[count > 0]
        weights = resampling_weights(len(count), seed, resamples)
        mean, resampled = ratio(total.sum(), count.sum()), ratio(weights @ total, weights @ count)
        estimates[name] = exact_at_bound(weighted_interval(float(mean), resampled, len(count), bounds), bounds)
    return estimates


def mean_intervals(values: Float[np.ndarray, "answers columns"], groups: ArrayLike | None = None) -> pd.DataFrame:
    """Return means of finite values by column, with t intervals over groups: mean, mean_low, mean_high, mean_few, n.

    Args:
      groups: [answers], such as their prompts; None makes each answer a group.
    """
    group = np.arange(len(values)) if groups is None else np.asarray(groups)
    sums, counts = _group_sums(np.where(np.isfinite(values), values, np.nan), group)
    inside, n = counts > 0, (counts > 0).sum(0)
    without = ratio(sums.sum(0) - sums, counts.sum(0) - counts)
    centred = np.where(inside, without - finite_mean(np.where(inside, without, np.nan), 0), 0.0)
    freedom = np.maximum(n - 1, 1)
    half = stats.t.isf(TAIL, freedom) * np.sqrt(freedom / np.maximum(n, 1) * (centred**2).sum(0))
    half = np.where(n > 1, half, np.nan)
    mean = ratio(sums.sum(0), counts.sum(0))
    ends = {"mean_low": mean - half, "mean_high": mean + half}
    return pd.DataFrame({"mean": mean, **ends, "mean_few": n < FEW, "n": n})


def _group_sums(values: np.ndarray, groups: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return sums and numbers [groups, columns] of the values that are not NaN."""
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums, counts = (np.zeros((int(group.max(initial=-1)) + 1, values.shape[1])) for _ in range(2))
    np.add.at(sums, group, np.where(np.isnan(values), 0.0, values))
    np.add.at(counts, group, ~np.isnan(values))
    return sums, counts
