"""Comparisons that control for a covariate, such as ln(length)."""

from __future__ import annotations

from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike

from jaxtrace.statistics.intervals import Estimate, Resampling, bootstrap


def residualize(values: ArrayLike, covariate: ArrayLike) -> np.ndarray:
    """Return the residuals [n] of a linear regression of values [n] on covariates [n] or [n, k], and a constant."""
    values, covariate = np.asarray(values, float), np.asarray(covariate, float)
    design = np.column_stack([np.ones(len(values)), covariate])
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def partial_correlation(x: ArrayLike, y: ArrayLike, covariate: ArrayLike, **settings: Unpack[Resampling]) -> Estimate:
    """Return Pearson's correlation of x and y after a covariate is regressed out; NaN if a residual is zero.

    Args:
      x, y: [rows], finite values.
      covariate: [rows], or [rows, k].

    Raises:
      StudyError: no rows.
    """

    def correlation(x: np.ndarray, y: np.ndarray, covariate: np.ndarray) -> float:
        a, b = residualize(x, covariate), residualize(y, covariate)
        scale = np.sqrt((a @ a) * (b @ b))
        return float(a @ b / scale) if scale > 1e-12 * np.sqrt((x @ x) * (y @ y)) else np.nan

    columns = np.asarray(x, float), np.asarray(y, float), np.asarray(covariate, float)
    return bootstrap(correlation, *columns, **settings)
