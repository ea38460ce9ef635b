"""Correlations of token features, all pairs at once, with intervals over prompts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import rankdata

from jaxtrace.statistics.intervals import Estimate, resampling_weights, weighted_interval
from jaxtrace.studies.dynamics.settings import CorrelationMethod


def correlations(
    features: pd.DataFrame,
    groups: Int[np.ndarray, " tokens"],
    *,
    fixed: str | None = None,
    method: CorrelationMethod = "pearson",
    seed: int = 0,
    resamples: int = 1000,
) -> pd.DataFrame:
    """Return correlations of all pairs of columns, with intervals from a bootstrap of groups.

    Sums of products are computed once per group, so that a resample is a weighted sum of them.

    Args:
      features: one row per token; rows with a value that is not finite are dropped, except for a
        column that has none, such as the attention of a model without any.
      groups: prompt of each token.
      fixed: column to hold fixed (partial correlations of the others).
      method: "pearson", or "spearman" for ranks among all tokens, which resamples keep.

    Returns:
      One row per pair: x, y, r, r_low, r_high, r_few, n (groups), tokens. r is NaN for a constant column or without
      a finite row, and its interval for a single group.
    """
    names, values = list(features.columns), features.to_numpy(float)
    known = np.isfinite(values)
    complete = known[:, known.any(axis=0)].all(axis=1) & known.any()
    values = values[complete]
    if not len(values):
        pairs = [{"x": x, "y": y} for i, y in enumerate(names) for x in names[:i] if fixed not in (x, y)]
        return pd.DataFrame(pairs).assign(**Estimate(np.nan, np.nan, np.nan, 0).columns("r"), n=0, tokens=0)
    if method == "spearman":
        values = rankdata(values, axis=0)
    scale = values.std(0)
    values = (values - values.mean(0)) / np.where(scale > 0, scale, np.nan)
    _, group = np.unique(groups[complete], return_inverse=True)
    sums = _group_sums(values, group)
    count = len(sums)
    weights = resampling_weights(count, seed, resamples)
    r = _correlation(sums.sum(0)[None])[0]
    resampled = _correlation((weights @ sums.reshape(count, -1)).reshape(-1, *sums.shape[1:]))
    if fixed is not None:
        column = names.index(fixed)
        r, resampled = _partial(r, column), _partial(resampled, column)
    rows = []
    for i, x in enumerate(names):
        for j, y in enumerate(names[:i]):
            if fixed not in (x, y):
                estimate = weighted_interval(float(r[i, j]), resampled[:, i, j], count, (-1.0, 1.0))
                rows.append({"x": y, "y": x, **estimate.columns("r"), "n": count, "tokens": len(values)})
    return pd.DataFrame(rows)


def _group_sums(values: Float[np.ndarray, "n k"], group: Int[np.ndarray, " n"]) -> Float[np.ndarray, "g k1 k1"]:
    """Return Σ v vᵀ of each group, v with a leading 1: its count, sums and sums of products."""
    ones = np.column_stack([np.ones(len(values)), values])
    order = np.argsort(group, kind="stable")
    parts = np.split(ones[order], np.cumsum(np.bincount(group))[:-1])
    return np.stack([part.T @ part for part in parts])


def _correlation(sums: Float[np.ndarray, "r k1 k1"]) -> Float[np.ndarray, "r k k"]:
    count = sums[:, :1, :1]
    mean = _ratio(sums[:, :1, 1:], count)
    covariance = _ratio(sums[:, 1:, 1:], count) - mean.swapaxes(1, 2) * mean
    spread = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
    return _ratio(covariance, spread[:, :, None] * spread[:, None, :])


def _partial(r: np.ndarray, column: int) -> np.ndarray:
    """Return correlations with column z held fixed: (r_xy − r_xz r_yz) / √((1 − r_xz²)(1 − r_yz²))."""
    z = r[..., :, column]
    unexplained = np.sqrt(np.maximum(1 - z**2, 0))
    return _ratio(r - z[..., :, None] * z[..., None, :], unexplained[..., :, None] * unexplained[..., None, :])


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 1e-9)
