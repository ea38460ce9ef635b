"""Intervals hold what they are to hold as often as they say, and groups stay together."""

import numpy as np
import pytest

from jaxtrace.errors import StudyError
from jaxtrace.statistics.intervals import block_bootstrap, bootstrap, draws, moving_blocks


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation(rng):
    values = rng.normal(3.0, 2.0, 2000)
    found = bootstrap(np.mean, values, resamples=2000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.value == values.mean()
    assert found.n == 2000
    assert found.low == pytest.approx(found.value - half, abs=0.15 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.15 * half)


def test_draws_are_whole_groups_with_the_rows_they_have():
    groups = np.array([7, 3, 7, 9, 3, 7])
    members = {group: set(np.flatnonzero(groups == group)) for group in (3, 7, 9)}
    for rows in draws(groups, seed=1, resamples=200):
        drawn = groups[rows]
        times = {group: (drawn == group).sum() // len(members[group]) for group in members}
        assert sum(times.values()) == 3
        for group, expected in members.items():
            for member in expected:
                assert (rows == member).sum() == times[group]


def covered(rng, interval_of, truth, trials=200):
    return np.mean([found.low <= truth <= found.high for found in (interval_of(rng) for _ in range(trials))])


def test_coverage_of_rows(rng):
    def one(rng):
        return bootstrap(np.mean, rng.exponential(1.0, 80), resamples=200)

    assert 0.86 < covered(rng, one, 1.0) <= 1.0


def test_coverage_of_groups_where_rows_alone_are_overconfident(rng):
    """20 rows of one prompt share most of their value: 40 prompts are 40 observations, not 800."""
    groups = np.repeat(np.arange(40), 20)

    def sample(rng):
        return rng.normal(0, 1, 40)[groups] + rng.normal(0, 0.5, 800)

    grouped = covered(rng, lambda rng: bootstrap(np.mean, sample(rng), groups=groups, resamples=200), 0.0)
    alone = covered(rng, lambda rng: bootstrap(np.mean, sample(rng), resamples=200), 0.0, trials=60)
    assert 0.86 < grouped <= 1.0
    assert alone < 0.6


def test_coverage_of_blocks_where_steps_alone_are_overconfident(rng):
    def walk(rng):
        noise, values = rng.normal(size=400), np.zeros(400)
        for t in range(1, 400):
            values[t] = 0.7 * values[t - 1] + noise[t]
        return values

    blocks = covered(rng, lambda rng: block_bootstrap(np.mean, walk(rng), 20, resamples=200), 0.0)
    steps = covered(rng, lambda rng: block_bootstrap(np.mean, walk(rng), 1, resamples=200), 0.0)
    assert 0.84 < blocks <= 1.0
    assert steps < 0.75


def test_blocks_are_runs_of_neighbours():
    rows = moving_blocks(10, 4, seed=0, resamples=50)
    assert rows.shape == (50, 10)
    assert rows.min() == 0 and rows.max() == 9
    np.testing.assert_array_equal(np.diff(rows[:, :4]), 1)
    np.testing.assert_array_equal(np.diff(rows[:, 8:]), 1)


def test_undefined_resamples_are_left_out_and_one_unit_has_no_interval():
    found = bootstrap(lambda x: 1 / x.sum() if x.sum() else np.nan, np.array([0.0, 0.0, 1.0]))
    assert found.value == 1.0 and found.high == 1.0 and found.low == pytest.approx(1 / 3)
    lone = bootstrap(np.mean, [2.0, 4.0], groups=["a", "a"])
    assert lone.value == 3.0 and lone.n == 1 and np.isnan(lone.low) and np.isnan(lone.high)


def test_the_seed_decides():
    values = np.arange(20.0)
    assert bootstrap(np.mean, values, seed=3) == bootstrap(np.mean, values, seed=3)
    assert bootstrap(np.mean, values, seed=3) != bootstrap(np.mean, values, seed=4)


def test_refusals():
    with pytest.raises(StudyError, match="no rows"):
        bootstrap(np.mean, [])
    with pytest.raises(StudyError, match="blocks of 5 of a series of 4 steps; give a block of 1 to 4"):
        block_bootstrap(np.mean, np.ones(4), 5)
