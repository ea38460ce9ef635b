"""Intervals cover the truth as often as their level says, and groups stay together."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from jaxtrace.errors import StudyError
from jaxtrace.statistics.intervals import (
    FEW,
    Estimate,
    bootstrap,
    interval,
    mean_intervals,
    moving_blocks,
    prompt_means,
    t_interval,
)
from jaxtrace.statistics.units import Units


def test_the_interval_of_a_mean_is_nearly_normal(rng):
    values = rng.normal(3.0, 2.0, 2000)
    estimate = bootstrap(np.mean, values, resamples=2000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert estimate.value == values.mean()
    assert estimate.n == 2000
    assert estimate.low == pytest.approx(estimate.value - half, abs=0.15 * half)
    assert estimate.high == pytest.approx(estimate.value + half, abs=0.15 * half)


def test_resamples_hold_whole_groups():
    groups = np.array([7, 3, 7, 9, 3, 7])
    members = {group: set(np.flatnonzero(groups == group)) for group in (3, 7, 9)}
    for rows in Units.of(6, groups).drawn(seed=1, resamples=200):
        drawn = groups[rows]
        times = {group: (drawn == group).sum() // len(members[group]) for group in members}
        assert sum(times.values()) == 3
        for group, expected in members.items():
            for member in expected:
                assert (rows == member).sum() == times[group]


def coverage(rng, interval_of, truth, trials=200):
    return np.mean([estimate.low <= truth <= estimate.high for estimate in (interval_of(rng) for _ in range(trials))])


def test_intervals_over_rows_cover(rng):
    rows = lambda rng: bootstrap(np.mean, rng.exponential(1.0, 80), resamples=200)  # noqa: E731
    assert 0.86 < coverage(rng, rows, 1.0) <= 1.0


def test_intervals_over_groups_cover_and_over_rows_do_not(rng):
    """20 rows of one prompt share most of their value: 40 prompts are 40 observations, not 800."""
    groups = np.repeat(np.arange(40), 20)

    def sample(rng):
        return rng.normal(0, 1, 40)[groups] + rng.normal(0, 0.5, 800)

    grouped = coverage(rng, lambda rng: bootstrap(np.mean, sample(rng), groups=groups, resamples=200), 0.0)
    alone = coverage(rng, lambda rng: bootstrap(np.mean, sample(rng), resamples=200), 0.0, trials=60)
    assert 0.86 < grouped <= 1.0
    assert alone < 0.6


def test_blocks_are_neighbouring_steps():
    rows = moving_blocks(10, 4, seed=0, resamples=50)
    assert rows.shape == (50, 10)
    assert rows.min() == 0 and rows.max() == 9
    np.testing.assert_array_equal(np.diff(rows[:, :4]), 1)
    np.testing.assert_array_equal(np.diff(rows[:, 8:]), 1)


def test_an_undefined_resample_counts_at_both_ends():
    """Among resamples of 10 values of which 8 are 0, one in nine has no mean of the values above 0."""
    values = np.array([0.0] * 8 + [1.0, 3.0])
    estimate = bootstrap(lambda x: x[x > 0].mean() if (x > 0).any() else np.nan, values, bounds=(0.0, 5.0))
    assert (estimate.value, estimate.low, estimate.high) == (2.0, 0.0, 5.0)
    few = bootstrap(lambda x: 1 / x.sum() if x.sum() else np.nan, np.array([0.0, 0.0, 1.0]))
    assert few.value == 1.0 and np.isnan([few.low, few.high]).all()
    assert np.isnan(interval(2.0, [np.nan] * 9, 20).low)


def test_infinite_resamples_are_ordered():
    values = [-np.inf] * 30 + [0.0] * 40 + [np.inf] * 30
    assert interval(0.0, values, 50) == Estimate(0.0, -np.inf, np.inf, 50)
    assert interval(0.0, [0.0] * 99 + [np.inf], 50).high == 0.0


def test_few_units_have_the_t_interval_of_their_mean(rng):
    values = rng.exponential(size=6)
    low, high = stats.t.interval(0.95, 5, values.mean(), stats.sem(values))
    for estimate in (
        bootstrap(np.mean, values),
        bootstrap(np.mean, np.repeat(values, 7), groups=np.repeat(np.arange(6), 7)),
        prompt_means(pd.DataFrame({"x": values}), pd.Series(range(6)))["x"],
    ):
        assert [estimate.low, estimate.high] == pytest.approx([low, high]) and estimate.few
    assert mean_intervals(values[:, None]).loc[0, ["mean_low", "mean_high"]].to_list() == pytest.approx([low, high])


def test_two_strata_have_the_interval_of_welch(rng):
    a, b = rng.normal(0, 1, 5), rng.normal(1, 3, 7)
    first = np.arange(12) < 5
    estimate = bootstrap(lambda x, f: x[f].mean() - x[~f].mean(), np.concatenate([a, b]), first, strata=first)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert [estimate.low, estimate.high] == pytest.approx([*expected])
    assert (estimate.n, estimate.fewest, estimate.few) == (12, 5, True)


def test_the_interval_reaches_from_t_to_percentiles_without_a_jump(rng):
    """At `FEW` units the quantiles of a mean's resamples lie near the t interval's ends."""
    widths = []
    for n in (FEW - 1, FEW):
        estimates = [bootstrap(np.mean, rng.normal(size=n), resamples=400) for _ in range(40)]
        widths.append(np.mean([estimate.high - estimate.low for estimate in estimates]) * np.sqrt(n))
        assert all(estimate.few == (n < FEW) for estimate in estimates)
    assert widths[0] == pytest.approx(widths[1], rel=0.15)


def test_samples_of_a_prompt_widen_the_interval_of_a_mean(rng):
    prompts = rng.normal(size=12)
    values = np.repeat(prompts, 5)[:, None]
    grouped, alone = mean_intervals(values, np.repeat(np.arange(12), 5)), mean_intervals(values)
    low, high = stats.t.interval(0.95, 11, prompts.mean(), stats.sem(prompts))
    assert grouped.loc[0, ["mean_low", "mean_high"]].to_list() == pytest.approx([low, high])
    assert grouped["n"][0] == 12 and alone["n"][0] == 60
    assert alone["mean_high"][0] - alone["mean_low"][0] < 0.6 * (high - low)


def test_equal_shares_at_a_bound_have_the_interval_of_clopper_and_pearson():
    for right in (np.ones(4), np.ones(9), np.zeros(7), np.zeros(100), np.ones(37)):
        estimate = bootstrap(np.mean, right, bounds=(0.0, 1.0))
        expected = stats.binomtest(int(right.sum()), len(right)).proportion_ci(0.95, "exact")
        assert [estimate.low, estimate.high] == pytest.approx([*expected])


def test_infinite_values_leave_the_t_interval_open():
    assert t_interval(2.0, [1.0, np.inf, 3.0]) == Estimate(2.0, -np.inf, np.inf, 3)
    assert t_interval(np.inf, [np.inf] * 4) == Estimate(np.inf, np.inf, np.inf, 4)


def test_one_unit_has_no_interval():
    lone = bootstrap(np.mean, [2.0, 4.0], groups=["a", "a"])
    assert lone.value == 3.0 and lone.n == 1 and np.isnan(lone.low) and np.isnan(lone.high)


@pytest.mark.nightly
@pytest.mark.parametrize("units", [4, 6, 10])
@pytest.mark.parametrize(
    ("draw", "truth", "least"),
    [
        (lambda rng, n: rng.normal(size=n), 0.0, 0.92),
        (lambda rng, n: rng.exponential(size=n), 1.0, 0.85),
        (lambda rng, n: (rng.random(n) < 0.3).astype(float), 0.3, 0.7),
    ],
    ids=["normal", "skewed", "share"],
)
def test_intervals_of_few_groups_cover(rng, units, draw, truth, least):
    """Percentiles of plain resamples cover 82 % (normal) and 76 % (skewed) at four groups."""
    groups = np.repeat(np.arange(units), 5)

    def mean(rng):
        return bootstrap(np.mean, np.repeat(draw(rng, units), 5), groups=groups, resamples=500)

    assert coverage(rng, mean, truth, trials=1500) > least


def test_the_seed_fixes_the_interval():
    values = np.arange(20.0)
    assert bootstrap(np.mean, values, seed=3) == bootstrap(np.mean, values, seed=3)
    assert bootstrap(np.mean, values, seed=3) != bootstrap(np.mean, values, seed=4)


def test_no_rows_and_too_long_blocks_are_refused():
    with pytest.raises(StudyError, match="no rows"):
        bootstrap(np.mean, [])
    with pytest.raises(StudyError, match="blocks of 5 of a series of 4 steps; give a block of 1 to 4"):
        moving_blocks(4, 5, seed=0, resamples=1)
