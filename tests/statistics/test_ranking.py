"""Scores of classes against scikit-learn, brute force and worked examples."""

import itertools

import numpy as np
import pytest
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
def test_one_class_is_refused(measure):
    with pytest.raises(StudyError, match=r"all 2 labels are True, .* compared; give rows of both classes"):
        measure([True, True], [0.1, 0.2])
    with pytest.raises(StudyError, match="there are no labels"):
        measure([], [])
