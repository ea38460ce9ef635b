"""Slopes and tests of series with a known trend."""

import numpy as np
import pytest
from scipy.stats import kendalltau, linregress, theilslopes

from jaxtrace.errors import StudyError
from jaxtrace.statistics.trends import mann_kendall, ols_slope, theil_sen


def test_the_slope_under_independent_noise_agrees_with_scipy(rng):
    x = np.arange(200) / 200
    y = 1.5 - 0.8 * x + rng.normal(0, 0.3, 200)
    estimate, expected = ols_slope(y, x, block=1, resamples=4000), linregress(x, y)
    assert estimate.value == pytest.approx(expected.slope)
    assert estimate.n == 200
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * expected.stderr, rel=0.1)


def test_blocks_cover_the_slope_under_dependent_noise(rng):
    x = np.arange(200) / 200

    def noise():
        steps, values = rng.normal(0, 0.3, 200), np.zeros(200)
        for t in range(1, 200):
            values[t] = 0.7 * values[t - 1] + steps[t]
        return values

    def cover(block):
        slopes = (ols_slope(2 * x + noise(), x, block=block, resamples=200) for _ in range(200))
        return np.mean([slope.low <= 2 <= slope.high for slope in slopes])

    assert cover(20) > 0.8
    assert cover(1) < 0.75


def test_theil_sen_is_the_median_slope_and_resists_an_outlier(rng):
    x = np.arange(30.0)
    y = 0.5 * x + rng.normal(0, 0.1, 30)
    y[3] = 1000.0
    estimate = theil_sen(y, x)
    slopes = [(y[j] - y[i]) / (x[j] - x[i]) for i in range(30) for j in range(i + 1, 30)]
    assert estimate.value == pytest.approx(np.median(slopes))
    assert estimate.low < 0.5 < estimate.high < 0.6


def test_mann_kendall_finds_a_trend_only_where_there_is_one(rng):
    assert mann_kendall(np.arange(20)) < 1e-6
    assert mann_kendall(np.ones(20)) == 1.0
    assert np.mean([mann_kendall(rng.normal(size=30)) < 0.1 for _ in range(200)]) == pytest.approx(0.1, abs=0.07)


def autoregressive(rng, steps, correlation):
    values = rng.normal(size=steps)
    for t in range(1, steps):
        values[t] += correlation * values[t - 1]
    return values


def test_mann_kendall_agrees_with_kendalls_tau_of_independent_steps(rng):
    """Alternating steps are corrected by no factor, and a series with ties has a smaller variance."""
    y = np.tile([0.0, 1.0], 15) + np.round(rng.normal(0, 0.2, 30), 1) + np.arange(30) / 50
    assert mann_kendall(y) == pytest.approx(kendalltau(np.arange(30), y, method="asymptotic").pvalue, rel=0.1)


@pytest.mark.parametrize("correlation", [0.0, 0.13, 0.5])
def test_mann_kendall_of_an_autoregression_without_a_trend(rng, correlation):
    """Kendall's own variance finds a trend in 22 % of the series of autocorrelation 0.5."""
    found = np.mean([mann_kendall(autoregressive(rng, 40, correlation)) < 0.05 for _ in range(400)])
    assert found < 0.1


@pytest.mark.nightly
@pytest.mark.parametrize(("steps", "most"), [(10, 0.11), (20, 0.1), (64, 0.09), (200, 0.08)])
@pytest.mark.parametrize("correlation", [0.0, 0.13, 0.3, 0.5])
def test_mann_kendall_of_more_autoregressions(rng, steps, most, correlation):
    found = np.mean([mann_kendall(autoregressive(rng, steps, correlation)) < 0.05 for _ in range(1000)])
    assert 0.01 < found < most


def test_mann_kendall_still_finds_a_trend_in_an_autoregression(rng):
    series = (autoregressive(rng, 64, 0.3) + np.arange(64) / 16 for _ in range(40))
    assert np.mean([mann_kendall(y) < 0.05 for y in series]) > 0.9


def test_sens_interval_covers_under_autocorrelation(rng):
    x = np.arange(40.0)
    slopes = [theil_sen(autoregressive(rng, 40, 0.5), x) for _ in range(150)]
    assert np.mean([slope.low <= 0 <= slope.high for slope in slopes]) > 0.88
    independent = theil_sen(y := np.tile([0.0, 1.0], 20) + 0.1 * rng.normal(size=40), x)
    assert [independent.low, independent.high] == pytest.approx(theilslopes(y, x)[2:], rel=0.1, abs=1e-3)
    assert theil_sen([1.0, 4.0, 2.0], [0.0, 1.0, 2.0]).low == -np.inf  # three values do not bound a slope


def test_a_slope_of_few_steps_has_a_t_interval(rng):
    slopes = [ols_slope(rng.normal(size=6), np.arange(6.0), block=1, resamples=300) for _ in range(300)]
    assert 0.9 < np.mean([slope.low <= 0 <= slope.high for slope in slopes]) <= 1


def test_too_short_series_are_refused():
    with pytest.raises(StudyError, match="a trend of 2 values"):
        ols_slope([1.0, 2.0], [0.0, 1.0], block=1)
    with pytest.raises(StudyError, match="blocks of 9"):
        ols_slope(np.arange(5.0), np.arange(5.0), block=9)
    for trend in (mann_kendall, lambda y: theil_sen(y, np.arange(4.0))):
        with pytest.raises(StudyError, match="values that are not all finite; exclude steps"):
            trend([1.0, np.nan, 3.0, 4.0])
