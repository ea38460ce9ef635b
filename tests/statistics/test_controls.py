"""What is left when a covariate is held fixed."""

import numpy as np
import pytest

from jaxtrace.statistics.controls import partial_correlation, residualize


def test_what_is_left_has_nothing_of_the_covariates(rng):
    covariates = rng.normal(size=(50, 2))
    left = residualize(rng.normal(size=50) + covariates @ [2.0, -1.0] + 3, covariates)
    np.testing.assert_allclose(covariates.T @ left, 0, atol=1e-10)
    assert left.sum() == pytest.approx(0, abs=1e-10)
    np.testing.assert_allclose(residualize(np.arange(5.0), np.arange(5.0)), 0, atol=1e-12)


def test_the_textbook_formula(rng):
    z = rng.normal(size=300)
    x, y = z + rng.normal(size=300), z + rng.normal(size=300)
    (_, xy, xz), (_, _, yz), _ = np.corrcoef([x, y, z])
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    found = partial_correlation(x, y, z)
    assert found.value == pytest.approx(expected)
    assert found.low < 0 < found.high and xy > 0.3  # length alone made them go together


def test_nothing_left_is_nan():
    z = np.arange(10.0)
    assert np.isnan(partial_correlation(2 * z, z**2, z, resamples=5).value)
