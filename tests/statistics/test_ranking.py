"""Scores of classes against scikit-learn, brute force and worked examples."""

import itertools

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from jaxtrace.errors import StudyError
from jaxtrace.statistics.ranking import auprc, auroc, prediction_rejection_ratio, risk_coverage


@pytest.fixture
def ranked(rng):
    labels = rng.random(300) < 0.3
    return labels, np.round(rng.normal(size=300) + labels, 1)  # with ties


def test_areas_agree_with_scikit_learn(ranked):
    assert auroc(*ranked, resamples=10).value == pytest.approx(roc_auc_score(*ranked))
    assert auprc(*ranked, resamples=10).value == pytest.approx(average_precision_score(*ranked))


def test_the_interval_of_auroc_agrees_with_hanley_and_mcneil(ranked):
    estimate = auroc(*ranked)
    area, true, false = estimate.value, ranked[0].sum(), (~ranked[0]).sum()
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (true - 1) * (q1 - area**2) + (false - 1) * (q2 - area**2)) / (true * false)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * np.sqrt(variance), rel=0.2)
    assert estimate.low < area < estimate.high


def test_prediction_rejection_by_hand():
    """Right, wrong, right in order of confidence: kept accuracies 1, 1/2, 2/3; oracle 1, 1, 2/3; chance 2/3."""
    labels, scores = [True, False, True], [3.0, 2.0, 1.0]
    assert prediction_rejection_ratio(labels, scores).value == pytest.approx((13 / 18 - 2 / 3) / (8 / 9 - 2 / 3))
    coverage, risk, area = risk_coverage(labels, scores)
    np.testing.assert_allclose(coverage, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3])
    assert area == pytest.approx(5 / 18)


def test_prediction_rejection_of_the_oracle_its_opposite_and_chance(rng):
    labels = rng.random(400) < 0.7
    assert prediction_rejection_ratio(labels, labels).value == pytest.approx(1.0)
    assert prediction_rejection_ratio(labels, ~labels).value < -1
    assert prediction_rejection_ratio(labels, np.zeros(400)).value == pytest.approx(0.0, abs=1e-12)
    many = [prediction_rejection_ratio(labels, rng.random(400), resamples=1).value for _ in range(200)]
    assert np.mean(many) == pytest.approx(0.0, abs=0.04)


def test_ties_average_over_their_orders():
    labels, scores = np.array([1, 0, 0, 1, 1]), np.array([2.0, 1.0, 1.0, 1.0, 0.0])
    areas = []
    for order in itertools.permutations([1, 2, 3]):
        kept = labels[[0, *order, 4]]
        areas.append(np.mean(1 - np.cumsum(kept) / np.arange(1, 6)))
    assert risk_coverage(labels, scores)[2] == pytest.approx(np.mean(areas))


def test_groups_widen_the_interval(rng):
    labels = np.repeat(rng.random(40) < 0.5, 25)
    scores, groups = np.repeat(rng.normal(size=40), 25) + labels, np.repeat(np.arange(40), 25)
    rows, prompts = auroc(labels, scores, resamples=300), auroc(labels, scores, groups=groups, resamples=300)
    assert prompts.n == 40 and rows.n == 1000
    assert prompts.high - prompts.low > 3 * (rows.high - rows.low)


@pytest.mark.parametrize("measure", [auroc, auprc, prediction_rejection_ratio])
def test_a_rare_class_is_in_every_resample(rng, measure):
    """Without strata, one of eight resamples of 40 rows would have no row of a class of two."""
    labels, scores = np.arange(40) < 2, rng.normal(size=40)
    estimate = measure(labels, scores)
    assert np.isfinite([estimate.low, estimate.high]).all() and estimate.few
    assert np.isnan(measure(np.arange(40) < 1, scores).low)  # one row says nothing about the spread of its class


def test_an_area_of_one_is_not_certain_from_few_rows():
    few = auroc([1, 1, 1, 0, 0, 0], [4, 5, 6, 1, 2, 3])
    assert few.high == 1.0 and few.low == pytest.approx(0.025 ** (1 / 3))
    assert auroc([1] * 50 + [0] * 50, np.arange(100)).low == 0.0


@pytest.mark.nightly
@pytest.mark.parametrize("units", [4, 6, 10])
def test_few_prompts_cover_the_auroc(rng, units):
    """Answers of `units` right and `units` wrong prompts, three each; the expected AUROC of N(1, 1) over N(0, 1)."""
    labels, groups = np.repeat([1, 0], 3 * units), np.repeat(np.arange(2 * units), 3)
    truth, hits = norm.cdf(1 / np.sqrt(2)), []
    for _ in range(600):
        level = rng.normal(size=2 * units)[groups] * 0.7 + rng.normal(size=6 * units) * np.sqrt(0.51)
        estimate = auroc(labels, labels + level, groups=groups, resamples=300)
        hits.append(estimate.low <= truth <= estimate.high)
    assert np.mean(hits) > 0.88


@pytest.mark.parametrize("measure", [auroc, auprc, prediction_rejection_ratio])
def test_one_class_is_refused(measure):
    with pytest.raises(StudyError, match=r"all 2 labels are True, .* compared; give rows of both classes"):
        measure([True, True], [0.1, 0.2])
    with pytest.raises(StudyError, match="there are no labels"):
        measure([], [])
