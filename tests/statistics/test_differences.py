"""Differences of means against SciPy and by hand."""

import itertools

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, permutation_test, rankdata, ttest_ind

from jaxtrace.errors import StudyError
from jaxtrace.statistics.differences import difference, paired_difference, permutation_p
from jaxtrace.statistics.intervals import Estimate


def test_hedges_g_by_hand():
    """Means 2 and 5, both variances 1: d = −3, corrected by 1 − 3 / (4·4 − 1) = 0.8."""
    estimate = difference([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    assert estimate.difference.value == pytest.approx(-3.0)
    assert estimate.effect.value == pytest.approx(-2.4)
    assert estimate.n == (3, 3)


def test_interval_and_p_agree_with_scipy(rng):
    a, b = rng.normal(0.4, 1, 60), rng.normal(0, 1, 90)
    estimate = difference(a, b, resamples=4000)
    welch = ttest_ind(a, b, equal_var=False)
    low, high = welch.confidence_interval()
    assert estimate.difference.value == pytest.approx(a.mean() - b.mean())
    assert estimate.difference.low == pytest.approx(low, abs=0.05)
    assert estimate.difference.high == pytest.approx(high, abs=0.05)
    expected = permutation_test(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), vectorized=True, n_resamples=4000, rng=0
    ).pvalue
    assert estimate.p == pytest.approx(expected, abs=0.01)


def test_groups_in_one_set_are_permuted_as_a_whole(rng):
    """4 and 4 prompts: 2 of the 70 ways to choose 4 of 8 are as far apart as these."""
    a, b = np.repeat([5.0, 6.0, 7.0, 8.0], 25), np.repeat([1.0, 2.0, 3.0, 4.0], 25)
    of = np.repeat(np.arange(4), 25)
    grouped = difference(a, b, groups_a=of, groups_b=of + 4, resamples=5000)
    assert grouped.p == pytest.approx(2 / 70, abs=0.008)
    assert grouped.difference.n == 8
    assert difference(a, b, resamples=500).p == pytest.approx(2 / 501)


def test_differences_between_groups_do_not_count_within_groups(rng):
    """Prompts of high values are mostly in the first set; the sets differ within a prompt only in the last case."""
    level = np.repeat(rng.normal(0, 5, 40), 10)
    of = np.repeat(np.arange(40), 10)
    first = rng.random(400) < np.where(level > 0, 0.8, 0.2)
    values = level + rng.normal(0, 1, 400)

    def p(values):
        sides = {"groups_a": of[first], "groups_b": of[~first]}
        return difference(values[first], values[~first], **sides, resamples=500).p

    assert difference(values[first], values[~first], resamples=500).p < 0.01
    assert p(values) > 0.05
    assert p(values + first) < 0.01


def test_p_is_uniform_without_a_difference(rng):
    ps = [difference(rng.normal(size=15), rng.normal(size=20), resamples=99).p for _ in range(200)]
    assert np.mean(np.array(ps) < 0.1) == pytest.approx(0.1, abs=0.07)


def test_p_of_pairs_agrees_with_all_signs(rng):
    gaps = rng.normal(0.5, 1, 9)
    a = rng.normal(size=9)
    estimate = paired_difference(a + gaps, a, resamples=20_000)
    all_means = np.array([np.dot(signs, gaps) / 9 for signs in itertools.product([-1, 1], repeat=9)])
    exact = 2 * (all_means >= gaps.mean() - 1e-12).mean()
    assert estimate.difference.value == pytest.approx(gaps.mean())
    assert estimate.effect.value == pytest.approx(gaps.mean() / gaps.std(ddof=1) * (1 - 3 / (4 * 8 - 1)))
    assert estimate.p == pytest.approx(exact, abs=0.015)
    assert estimate.difference.low < gaps.mean() < estimate.difference.high


def test_pairs_of_a_group_change_sign_together():
    estimate = paired_difference(np.ones(60), np.zeros(60), groups=np.repeat([0, 1, 2], 20), resamples=4000)
    assert estimate.p == 2 / 8
    assert paired_difference(np.ones(60), np.zeros(60), resamples=400).p == pytest.approx(2 / 401)


def test_resamples_without_variance_count(rng):
    """One of 39 values differs: 36 % of the resamples have no difference, which is an effect of 0."""
    outlier = difference([48.0] * 20, [48.0] * 19 + [11.0])
    assert outlier.p == 1.0 and outlier.effect.value == pytest.approx(0.31, abs=0.001)
    assert outlier.effect.low == outlier.difference.low == 0.0
    assert outlier.effect.high > 0.568  # the end without those resamples


@pytest.mark.parametrize("level", [1.0, 0.1])  # sums of 0.1 are not exact
def test_values_that_do_not_vary_have_no_effect_or_an_infinite_one(level):
    equal = difference([level] * 20, [level] * 15)
    assert (equal.difference, equal.effect, equal.p) == (*[Estimate(0.0, 0.0, 0.0, 35, 15)] * 2, 1.0)
    apart = difference([level] * 20, [0.0] * 15)
    assert apart.effect == Estimate(np.inf, np.inf, np.inf, 35, 15) and apart.p < 0.01
    below = paired_difference([0.0] * 12, [level] * 12)
    assert below.effect.value == below.effect.high == -np.inf and below.p < 0.01


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (3, 8), (4, 30), (12, 15)])
def test_an_interval_contains_0_where_the_test_does_not_reject(rng, sizes):
    for spread in (0.0, 1e-9, 1.0):
        a, b = (level + spread * rng.normal(size=n) for level, n in zip((0.5, 0.0), sizes, strict=True))
        for gap in (difference(a, b, resamples=500), paired_difference(a[:3], b[-3:], resamples=500)):
            for estimate in (gap.difference, gap.effect):
                if gap.p >= (0.1 if estimate.few else 0.05) and not np.isnan(estimate.low):
                    assert estimate.low <= 0 <= estimate.high


def test_few_values_have_the_interval_of_welch(rng):
    a, b = rng.normal(3, 1, 6), rng.normal(0, 2, 5)
    estimate = difference(a, b).difference
    assert [estimate.low, estimate.high] == pytest.approx([*ttest_ind(a, b, equal_var=False).confidence_interval()])
    assert estimate.few and not difference(np.arange(10), np.arange(10)).difference.few


def test_the_test_of_ranks_is_that_of_mann_and_whitney(rng):
    values, first = rng.normal(size=40), rng.random(40) < 0.4
    values[first] += 0.6
    p = permutation_p(rankdata(values), first, resamples=20_000)
    assert p == pytest.approx(mannwhitneyu(values[first], values[~first], method="exact").pvalue, abs=0.01)


@pytest.mark.nightly
@pytest.mark.parametrize("groups", [4, 6, 10])
def test_intervals_of_few_groups_cover_a_difference_and_its_effect(rng, groups):
    """Two values of each of few prompts a set; the effect is 0.5 standard deviations of a value."""
    of, hits, trials = np.repeat(np.arange(groups), 2), np.zeros(2), 1000
    for _ in range(trials):
        a, b = (level + rng.normal(0, 0.8, groups)[of] + rng.normal(0, 0.6, 2 * groups) for level in (0.5, 0.0))
        gap = difference(a, b, groups_a=of, groups_b=of + groups, resamples=200)
        hits += [estimate.low <= 0.5 <= estimate.high for estimate in (gap.difference, gap.effect)]
    assert (hits / trials > 0.9).all()


def test_empty_sets_and_missing_values_are_refused():
    with pytest.raises(StudyError, match="a comparison of 0 with 2 values"):
        difference([], [1.0, 2.0])
    for compare in (difference, paired_difference):
        with pytest.raises(StudyError, match="not all finite"):
            compare([1.0, 2.0, np.nan], [3.0, 4.0, 5.0])
