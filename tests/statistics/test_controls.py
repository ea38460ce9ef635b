"""Residuals and partial correlations."""

import numpy as np
import pytest

from jaxtrace.statistics.controls import partial_correlation, residualize


def test_residuals_are_orthogonal_to_the_covariates(rng):
    covariates = rng.normal(size=(50, 2))
    residuals = residualize(rng.normal(size=50) + covariates @ [2.0, -1.0] + 3, covariates)
    np.testing.assert_allclose(covariates.T @ residuals, 0, atol=1e-10)
    assert residuals.sum() == pytest.approx(0, abs=1e-10)
    np.testing.assert_allclose(residualize(np.arange(5.0), np.arange(5.0)), 0, atol=1e-12)


def test_partial_correlation_is_the_textbook_formula(rng):
    z = rng.normal(size=300)
    x, y = z + rng.normal(size=300), z + rng.normal(size=300)
    (_, xy, xz), (_, _, yz), _ = np.corrcoef([x, y, z])
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    estimate = partial_correlation(x, y, z)
    assert estimate.value == pytest.approx(expected)
    assert estimate.low < 0 < estimate.high and xy > 0.3  # the covariate alone correlates them


def test_zero_residuals_give_nan():
    z = np.arange(10.0)
    assert np.isnan(partial_correlation(2 * z, z**2, z, resamples=5).value)
