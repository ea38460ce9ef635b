"""Comparisons with a covariate, such as ln(length), held fixed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from jaxtrace.statistics.intervals import Estimate, bootstrap


def residualize(values: ArrayLike, covariate: ArrayLike) -> np.ndarray:
    """Residuals [n] of a linear regression of values [n] on a covariate [n] or covariates [n, k], and a constant."""
    values, covariate = np.asarray(values, float), np.asarray(covariate, float)
    design = np.column_stack([np.ones(len(values)), covariate])
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def partial_correlation(
    x: ArrayLike,
    y: ArrayLike,
    covariate: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 1000,
) -> Estimate:
    """Pearson's correlation of what a covariate leaves of x and of y; NaN where it leaves nothing.

    Args:
      x, y: [rows] finite values.
      covariate: [rows], or [rows, k].
      groups: [rows], such as prompts, that are resampled as a whole.
      seed, resamples: of the interval.

    Raises:
      StudyError: there are no rows.
    """

    def correlation(x: np.ndarray, y: np.ndarray, covariate: np.ndarray) -> float:
        a, b = residualize(x, covariate), residualize(y, covariate)
        scale = np.sqrt((a @ a) * (b @ b))
        return float(a @ b / scale) if scale > 1e-12 * np.sqrt((x @ x) * (y @ y)) else np.nan

    columns = np.asarray(x, float), np.asarray(y, float), np.asarray(covariate, float)
    return bootstrap(correlation, *columns, groups=groups, seed=seed, resamples=resamples)
