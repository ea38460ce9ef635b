"""Comparisons that control for a covariate, such as ln(length)."""

from __future__ import annotations

from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike

from jaxtrace.statistics.intervals import Estimate, Resampling, bootstrap


def residualize(values: ArrayLike, covariate: ArrayLike) -> np.ndarray:
    """Return the residuals [n] of a linear regression of values [n] on covariates [n] or [n, k], and a constant.

    Rows with a value or a covariate that is not finite are excluded from the regression; their residuals are NaN.
    """
    values, covariate = np.asarray(values, float), np.asarray(covariate, float)
    design = np.column_stack([np.ones(len(values)), covariate])
    known = np.isfinite(values) & np.isfinite(design).all(axis=1)
    residuals = np.full(len(values), np.nan)
    if known.any():
        x, y = design[known], values[known]
        residuals[known] = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return residuals


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
    return bootstrap(correlation, *columns, bounds=(-1.0, 1.0), **settings)
