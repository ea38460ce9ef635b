"""Differences of means, with effect sizes, intervals and permutation tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jaxtrace.errors import StudyError
from jaxtrace.statistics.intervals import Estimate, bootstrap, interval, resampled_rows


@dataclass(frozen=True)
class Difference:
    """Difference between two sets of values.

    Attributes:
      difference: mean of the first set minus mean of the second.
      effect: Hedges' g: the difference in standard deviations, corrected for small sets.
      p: p-value of a two-sided permutation test of the difference; at least 1 / (resamples + 1).
      n: number of values in the first and in the second set.
    """

    difference: Estimate
    effect: Estimate
    p: float
    n: tuple[int, int]

    def columns(self, effect: str) -> dict[str, float]:
        """Return cells of a table row, with the effect's name: difference and effect with their ends, p, n."""
        return {**self.difference.columns("difference"), **self.effect.columns(effect), "p": self.p, "n": self.n[0]}


def difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    groups_a: ArrayLike | None = None,
    groups_b: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Difference:
    """Compare the means of two sets of values.

    Without groups, each set is resampled separately, and the test permutes values between the sets. With groups
    (prompts, each of which may give many values), groups are resampled, and the test permutes whole groups between the
    sets. If a group has values in both sets, the test permutes values within groups, so that only differences within a
    group count.

    Args:
      a, b: [n] and [m], finite values.
      groups_a, groups_b: group of each value; both or neither.
      seed: seed of the resamples and permutations.
      resamples: number of resamples of the intervals, and of permutations of the test.

    Raises:
      StudyError: a set is empty, or a value is not finite.
    """
    a, b = _finite(a), _finite(b)
    if not (len(a) and len(b)):
        raise StudyError(f"a comparison of {len(a)} with {len(b)} values; give traces that have values of both kinds")
    values, first = np.concatenate([a, b]), np.arange(len(a) + len(b)) < len(a)
    if groups_a is None or groups_b is None:
        groups = np.arange(len(values))
        pairs = zip(
            resampled_rows(groups[first], seed, resamples),
            resampled_rows(groups[~first], seed + 1, resamples),
            strict=True,
        )
        rows = (np.concatenate([rows_a, len(a) + rows_b]) for rows_a, rows_b in pairs)
    else:
        groups = np.unique(np.concatenate([groups_a, groups_b]), return_inverse=True)[1]
        rows = resampled_rows(groups, seed, resamples)
    mean, effect = _differences(values, first)
    means, effects = zip(*(_differences(values[row], first[row]) for row in rows), strict=True)
    units = len(np.unique(groups))
    p = _two_sided(mean, _permuted(values, first, groups, seed, resamples))
    return Difference(interval(mean, means, units), interval(effect, effects, units), p, (len(a), len(b)))


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, groups: ArrayLike | None = None, seed: int = 0, resamples: int = 2000
) -> Difference:
    """Compare the means of two values of the same rows.

    Pairs, or whole groups of pairs, are resampled; the test changes the signs of their differences. The effect is the
    mean difference in standard deviations of the differences, with Hedges' correction.

    Args:
      a, b: [n], finite values; values at the same index are a pair.
      groups: [n], group of each pair.
      seed, resamples: see `difference`.

    Raises:
      StudyError: no pairs, or a value is not finite.
    """
    gaps = _finite(a) - _finite(b)
    settings = {"groups": groups, "seed": seed, "resamples": resamples}
    mean = bootstrap(np.mean, gaps, **settings)
    effect = bootstrap(lambda x: _ratio(x.mean(), _deviation(x)) * _small_sample(len(x) - 1), gaps, **settings)
    pair_group = np.arange(len(gaps)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.bincount(pair_group, gaps)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (resamples, len(sums)))
    return Difference(mean, effect, _two_sided(float(gaps.mean()), signs @ sums / len(gaps)), (len(gaps), len(gaps)))


def _finite(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, float)
    if not np.isfinite(array).all():
        raise StudyError("a comparison of values that are not all finite; exclude rows without a value")
    return array


def _differences(values: np.ndarray, first: np.ndarray) -> tuple[float, float]:
    """Return the difference of means and Hedges' g; NaN if a set is empty."""
    a, b = values[first], values[~first]
    if not (len(a) and len(b)):
        return np.nan, np.nan
    gap, freedom = float(a.mean() - b.mean()), len(values) - 2
    pooled = (len(a) * a.var() + len(b) * b.var()) / freedom if freedom else 0.0
    return gap, _ratio(gap, np.sqrt(pooled)) * _small_sample(freedom)


def _small_sample(freedom: int) -> float:
    """Return Hedges' correction of a standardized mean (Hedges 1981), 1 − 3 / (4 · degrees of freedom − 1)."""
    return 1 - 3 / (4 * freedom - 1)


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan


def _ratio(over: float, under: float) -> float:
    return float(over / under) if under > 0 else np.nan


def _permuted(values: np.ndarray, first: np.ndarray, groups: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return differences of means [resamples] with groups permuted between sets, or values within groups."""
    rng = np.random.default_rng(seed)
    sizes, firsts = np.bincount(groups), np.bincount(groups, first)
    if np.all((firsts == 0) | (firsts == sizes)):
        sums, side = np.bincount(groups, values), firsts > 0
        sides = (rng.permutation(side) for _ in range(resamples))
        total, count = np.array([(sums[side].sum(), sizes[side].sum()) for side in sides]).T
    else:
        order = np.argsort(groups, kind="stable")
        side = first[order]
        shuffled = (np.argsort(groups[order] + rng.random(len(values))) for _ in range(resamples))
        total = np.array([values[order][permuted[side]].sum() for permuted in shuffled])
        count = first.sum()
    return total / count - (values.sum() - total) / (len(values) - count)


def _two_sided(value: float, null: np.ndarray) -> float:
    """Return twice the smaller tail, the observed value included (as scipy.stats.permutation_test does)."""
    slack = 1e-12 * (abs(value) + np.abs(null).max())
    tails = [(null >= value - slack).sum(), (null <= value + slack).sum()]
    return float(min(1.0, 2 * (1 + min(tails)) / (1 + len(null))))
