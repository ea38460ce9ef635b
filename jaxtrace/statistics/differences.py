"""Differences of means, with effect sizes, intervals and permutation tests."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from jaxtrace.errors import StudyError
from jaxtrace.statistics.intervals import Estimate, Resampling, bootstraps


@dataclass(frozen=True)
class Difference:
    """Difference between two sets of values. Where p ≥ 0.05 (few units: 0.1), its intervals contain 0.

    Attributes:
      difference: mean of the first set minus mean of the second.
      effect: Hedges' g: the difference in standard deviations, corrected for small sets; 0 without a difference,
        infinite if values do not vary otherwise, and NaN below two degrees of freedom.
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
    (prompts, each of which may give many values), each set's groups are resampled, and the test permutes whole groups
    between the sets. If a group has values in both sets, groups of both are resampled together, and the test permutes
    values within groups, so that only differences within a group count.

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
        groups = None
    else:
        groups = np.unique(np.concatenate([groups_a, groups_b]), return_inverse=True)[1]
    correction = _small_sample(len(values) - 2)

    def statistics(values: np.ndarray, first: np.ndarray) -> tuple[float, float]:
        gap, deviation = _gap_and_deviation(values, first)
        return gap, _standardized(gap, deviation, values) * correction

    settings = Resampling(groups=groups, seed=seed, resamples=resamples)
    mean, effect = bootstraps(statistics, values, first, strata=first, **settings)
    p = permutation_p(values, first, groups=groups, seed=seed, resamples=resamples)
    return Difference(with_null(mean, p), with_null(effect, p), p, (len(a), len(b)))


def paired_difference(
    a: ArrayLike, b: ArrayLike, *, groups: ArrayLike | None = None, seed: int = 0, resamples: int = 2000
) -> Difference:
    """Compare the means of two values of the same rows.

    Pairs, or whole groups of pairs, are resampled; the test changes the signs of their differences, in all ways
    if these are no more than the resamples. The effect is the
    mean difference in standard deviations of the differences, with Hedges' correction.

    Args:
      a, b: [n], finite values; values at the same index are a pair.
      groups: [n], group of each pair.
      seed, resamples: see `difference`.

    Raises:
      StudyError: no pairs, or a value is not finite.
    """
    gaps = _finite(a) - _finite(b)
    correction = _small_sample(len(gaps) - 1)

    def statistics(gaps: np.ndarray) -> tuple[float, float]:
        deviation = float(gaps.std(ddof=1)) if len(gaps) > 1 else np.nan
        gap = _without_rounding(float(gaps.mean()), gaps)
        return gap, _standardized(gap, deviation, gaps) * correction

    mean, effect = bootstraps(statistics, gaps, groups=groups, seed=seed, resamples=resamples)
    pair_group = np.arange(len(gaps)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.bincount(pair_group, gaps)
    exact = 2 ** len(sums) <= resamples
    if exact:
        signs = np.array([*itertools.product((-1.0, 1.0), repeat=len(sums))])
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (resamples, len(sums)))
    p = _two_sided(mean.value, signs @ sums / len(gaps), gaps, exact=exact)
    return Difference(with_null(mean, p), with_null(effect, p), p, (len(gaps), len(gaps)))


def permutation_p(
    values: ArrayLike, first: ArrayLike, *, groups: ArrayLike | None = None, seed: int = 0, resamples: int = 2000
) -> float:
    """Return the two-sided p of the difference of means, permuted as `difference` says; of ranks, it tests AUROC = 0.5.

    Args:
      values: [rows], finite.
      first: [rows], True for the first set; both sets have rows.
      groups: [rows].
    """
    values, first = np.asarray(values, float), np.asarray(first, bool)
    number = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    return _two_sided(_gap_and_deviation(values, first)[0], _permuted(values, first, number, seed, resamples), values)


def _finite(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, float)
    if not np.isfinite(array).all():
        raise StudyError("a comparison of values that are not all finite; exclude rows without a value")
    return array


def _gap_and_deviation(values: np.ndarray, first: np.ndarray) -> tuple[float, float]:
    """Return the difference of means and the pooled standard deviation; NaN if a set is empty."""
    a, b = values[first], values[~first]
    if not (len(a) and len(b)):
        return np.nan, np.nan
    freedom = len(values) - 2
    pooled = np.sqrt((len(a) * a.var() + len(b) * b.var()) / freedom) if freedom else np.nan
    return _without_rounding(float(a.mean() - b.mean()), values), float(pooled)


def _standardized(gap: float, deviation: float, values: np.ndarray) -> float:
    """Return a difference in standard deviations: 0 without a difference, infinite if only the deviation is zero."""
    if np.isnan(deviation) or gap == 0:
        return 0 * deviation
    return gap / deviation if deviation > _rounding(values) else float(np.copysign(np.inf, gap))


def _without_rounding(gap: float, values: np.ndarray) -> float:
    """Return a difference of means, 0 where it is only the rounding of equal values."""
    return 0.0 if abs(gap) <= _rounding(values) else gap


def _rounding(values: np.ndarray) -> float:
    return 1e-13 * float(np.abs(values).max())


def _small_sample(freedom: int) -> float:
    """Return Hedges' correction of a standardized mean (Hedges 1981); NaN below two degrees of freedom.

    It is 1 − 3 / (4 · degrees of freedom − 1).
    """
    return 1 - 3 / (4 * freedom - 1) if freedom > 1 else np.nan


def with_null(estimate: Estimate, p: float, null: float = 0.0) -> Estimate:
    """Return an estimate whose interval contains `null` unless the test rejects it: at 5 %, or at 10 % for few units.

    The test needs no variance, whereas an interval of few or equal values may be too short.
    """
    if p < (0.1 if estimate.few else 0.05) or np.isnan(estimate.low):
        return estimate
    return replace(estimate, low=min(estimate.low, null), high=max(estimate.high, null))


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


def _two_sided(value: float, null: np.ndarray, values: np.ndarray, *, exact: bool = False) -> float:
    """Return twice the smaller tail, as scipy.stats.permutation_test does.

    Args:
      null: differences under random permutations, or with `exact` under all, of which the observed one is one.
      values: values that were permuted.
    """
    slack = 10 * _rounding(values)
    tails = [(null >= value - slack).sum(), (null <= value + slack).sum()]
    observed = 0 if exact else 1
    return float(min(1.0, 2 * (observed + min(tails)) / (observed + len(null))))
