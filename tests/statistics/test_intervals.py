"""Intervals cover the truth as often as their level says, and groups stay together."""

import numpy as np
import pytest

from jaxtrace.errors import StudyError
from jaxtrace.statistics.intervals import bootstrap, moving_blocks, resampled_rows


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
    for rows in resampled_rows(groups, seed=1, resamples=200):
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


def test_undefined_resamples_are_excluded_and_one_unit_has_no_interval():
    estimate = bootstrap(lambda x: 1 / x.sum() if x.sum() else np.nan, np.array([0.0, 0.0, 1.0]))
    assert estimate.value == 1.0 and estimate.high == 1.0 and estimate.low == pytest.approx(1 / 3)
    lone = bootstrap(np.mean, [2.0, 4.0], groups=["a", "a"])
    assert lone.value == 3.0 and lone.n == 1 and np.isnan(lone.low) and np.isnan(lone.high)


def test_the_seed_fixes_the_interval():
    values = np.arange(20.0)
    assert bootstrap(np.mean, values, seed=3) == bootstrap(np.mean, values, seed=3)
    assert bootstrap(np.mean, values, seed=3) != bootstrap(np.mean, values, seed=4)


def test_no_rows_and_too_long_blocks_are_refused():
    with pytest.raises(StudyError, match="no rows"):
        bootstrap(np.mean, [])
    with pytest.raises(StudyError, match="blocks of 5 of a series of 4 steps; give a block of 1 to 4"):
        moving_blocks(4, 5, seed=0, resamples=1)
