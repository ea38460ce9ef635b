"""Calibration by hand, and for exact probabilities."""

import numpy as np
import pytest

from jaxtrace.statistics.calibration import calibration_curve, expected_calibration_error


def test_two_bins_by_hand():
    """Two bins: |1/2 − 0.2| over two rows and |2/3 − 0.9| over three."""
    labels, probabilities = [1, 0, 1, 1, 0], [0.1, 0.3, 0.8, 0.9, 1.0]
    estimate = expected_calibration_error(labels, probabilities, bins=2)
    assert estimate.value == pytest.approx((2 * 0.3 + 3 * (0.9 - 2 / 3)) / 5)
    curve = calibration_curve(labels, probabilities, bins=2)
    np.testing.assert_allclose(curve[["probability", "accuracy"]], [[0.2, 0.5], [0.9, 2 / 3]])
    assert curve["n"].tolist() == [2, 3]


def test_exact_probabilities_have_no_error_and_overconfident_ones_a_large_one(rng):
    probabilities = rng.random(5000)
    labels = rng.random(5000) < probabilities
    exact = expected_calibration_error(labels, probabilities, resamples=200)
    wrong = expected_calibration_error(labels, np.where(probabilities > 0.5, 1.0, 0.0), resamples=200)
    assert exact.value < 0.03
    assert wrong.low < 0.25 < wrong.high  # mean distance of a uniform number to the nearer of 0 and 1
    curve = calibration_curve(labels, probabilities)
    assert len(curve) == 20 and curve["n"].sum() == 5000
    inside = (curve["accuracy_low"] <= curve["probability"]) & (curve["probability"] <= curve["accuracy_high"])
    assert inside.mean() >= 0.8
