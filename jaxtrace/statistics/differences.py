"""Differences of means, with effect sizes, intervals and permutation tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jaxtrace.errors import StudyError
from jaxtrace.statistics.intervals import Estimate, bootstrap, draws, interval


@dataclass(frozen=True)
class Difference:
    """How two sets of values differ.

    Attributes:
      difference: mean of the first minus mean of the second.
      effect: Hedges' g: the difference in standard deviations, corrected for small sets.
      p: of a two-sided permutation test of the difference; at least 1 / (resamples + 1).
      n: values in the first and in the second.
    """

    difference: Estimate
    effect: Estimate
    p: float
    n: tuple[int, int]


def difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    groups_a: ArrayLike | None = None,
    groups_b: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> Difference:
    """Compares the means of two sets of values.

    Without groups, each set is resampled for itself, and the test permutes values between the sets. With groups
    (prompts, of which each may give many values), groups are resampled, and the test permutes whole groups between
    the sets; where some group has values in both, it permutes values within groups: only differences within a group
    count then.

    Args:
      a, b: [n], [m] finite values.
      groups_a, groups_b: the group of each; both or neither.
      seed: of the draws.
      resamples: of the intervals, and permutations of the test.

    Raises:
      StudyError: a set is empty, or a value is not finite.
    """
    a, b = _finite(a), _finite(b)
    if not (len(a) and len(b)):
        raise StudyError(f"a comparison of {len(a)} with {len(b)} values; give traces that have some of either kind")
    values, first = np.concatenate([a, b]), np.arange(len(a) + len(b)) < len(a)
    if groups_a is None or groups_b is None:
        groups = np.arange(len(values))
        pairs = zip(draws(groups[first], seed, resamples), draws(groups[~first], seed + 1, resamples), strict=True)
        rows = (np.concatenate([left, len(a) + right]) for left, right in pairs)
    else:
        groups = np.unique(np.concatenate([groups_a, groups_b]), return_inverse=True)[1]
        rows = draws(groups, seed, resamples)
    mean, effect = _differences(values, first)
    means, effects = zip(*(_differences(values[row], first[row]) for row in rows), strict=True)
    units = len(np.unique(groups))
    p = _two_sided(mean, _permuted(values, first, groups, seed, resamples))
    return Difference(interval(mean, means, units), interval(effect, effects, units), p, (len(a), len(b)))


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, groups: ArrayLike | None = None, seed: int = 0, resamples: int = 2000
) -> Difference:
    """Compares the means of two sets of values of the same rows.

    Pairs, or whole groups of pairs, are resampled; the test changes the signs of their differences. The effect is the
    mean difference in standard deviations of the differences, corrected as Hedges' g is.

    Args:
      a, b: [n] finite values, of the same row at the same place.
      groups: [n], the group of each row.
      seed, resamples: as for `difference`.

    Raises:
      StudyError: there are no pairs, or a value is not finite.
    """
    gaps = _finite(a) - _finite(b)
    settings = {"groups": groups, "seed": seed, "resamples": resamples}
    mean = bootstrap(np.mean, gaps, **settings)
    effect = bootstrap(lambda some: _ratio(some.mean(), _deviation(some)) * _small(len(some) - 1), gaps, **settings)
    of = np.arange(len(gaps)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.bincount(of, gaps)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (resamples, len(sums)))
    return Difference(mean, effect, _two_sided(float(gaps.mean()), signs @ sums / len(gaps)), (len(gaps), len(gaps)))


def _finite(values: ArrayLike) -> np.ndarray:
    found = np.asarray(values, float)
    if not np.isfinite(found).all():
        raise StudyError("a comparison of values that are not all finite; leave out what has none")
    return found


def _differences(values: np.ndarray, first: np.ndarray) -> tuple[float, float]:
    """The difference of means and Hedges' g; NaN where a set is empty."""
    a, b = values[first], values[~first]
    if not (len(a) and len(b)):
        return np.nan, np.nan
    gap, freedom = float(a.mean() - b.mean()), len(values) - 2
    pooled = (len(a) * a.var() + len(b) * b.var()) / freedom if freedom else 0.0
    return gap, _ratio(gap, np.sqrt(pooled)) * _small(freedom)


def _small(freedom: int) -> float:
    """Hedges' correction of a standardised mean (Hedges 1981), 1 − 3 / (4 · degrees of freedom − 1)."""
    return 1 - 3 / (4 * freedom - 1)


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan


def _ratio(over: float, under: float) -> float:
    return float(over / under) if under > 0 else np.nan


def _permuted(values: np.ndarray, first: np.ndarray, groups: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Differences of means [resamples] under permutations: of groups between the sets, or of values within groups."""
    rng = np.random.default_rng(seed)
    sizes, firsts = np.bincount(groups), np.bincount(groups, first)
    if np.all((firsts == 0) | (firsts == sizes)):
        sums, side = np.bincount(groups, values), firsts > 0
        sides = (rng.permutation(side) for _ in range(resamples))
        counted = np.array([(sums[one].sum(), sizes[one].sum()) for one in sides])
        total, count = counted[:, 0], counted[:, 1]
    else:
        order = np.argsort(groups, kind="stable")
        side = first[order]
        shuffled = (np.argsort(groups[order] + rng.random(len(values))) for _ in range(resamples))
        total = np.array([values[order][one[side]].sum() for one in shuffled])
        count = first.sum()
    return total / count - (values.sum() - total) / (len(values) - count)


def _two_sided(value: float, null: np.ndarray) -> float:
    """Twice the smaller tail, the value itself counted in (as scipy.stats.permutation_test does)."""
    slack = 1e-12 * (abs(value) + np.abs(null).max())
    tails = [(null >= value - slack).sum(), (null <= value + slack).sum()]
    return float(min(1.0, 2 * (1 + min(tails)) / (1 + len(null))))
