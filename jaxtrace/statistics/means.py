"""Means of the values that are there. It imports no SciPy, which takes half a second to load."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def finite_mean(values: ArrayLike, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Return the mean over some axes of the values that are finite, float64; NaN where none is."""
    array = np.asarray(values, float)
    finite = np.isfinite(array)
    return ratio(np.where(finite, array, 0.0).sum(axis), finite.sum(axis))


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> np.ndarray:
    """Return numerator / denominator, float64; NaN where the denominator is not positive."""
    over, under = np.asarray(numerator, float), np.asarray(denominator, float)
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)
