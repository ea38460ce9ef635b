"""Correlations of tokens that come in prompts, all pairs at once."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import rankdata

from jaxtrace.statistics.intervals import interval
from jaxtrace.studies.dynamics.settings import Method


def correlations(
    features: pd.DataFrame,
    groups: Int[np.ndarray, " tokens"],
    *,
    given: str | None = None,
    method: Method = "pearson",
    seed: int = 0,
    resamples: int = 1000,
) -> pd.DataFrame:
    """Correlations of all pairs of columns, with intervals from a bootstrap of groups.

    Sums of products are taken once in each group, so that a resample is a weighted sum of them.

    Args:
      features: a row per token; rows with a NaN are left out.
      groups: the prompt of each.
      given: a column that is held fixed (partial correlations of the others).
      method: "spearman" correlates ranks among all tokens; a resample does not rank anew.
      seed, resamples: of the intervals.

    Returns:
      A row per pair: x, y, r, r_low, r_high, n (groups), tokens. NaN where a column is constant, and for the interval
      where there is one group.
    """
    whole = features.notna().all(axis=1).to_numpy()
    names, values = list(features.columns), features.to_numpy(float)[whole]
    if method == "spearman":
        values = rankdata(values, axis=0)
    scale = values.std(0)
    values = (values - values.mean(0)) / np.where(scale > 0, scale, np.nan)
    _, group = np.unique(groups[whole], return_inverse=True)
    sums = _sums(values, group)
    rng = np.random.default_rng(seed)
    count = len(sums)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    found = _correlation(sums.sum(0)[None])[0]
    drawn = _correlation((weights @ sums.reshape(count, -1)).reshape(resamples, *sums.shape[1:]))
    if given is not None:
        at = names.index(given)
        found, drawn = _partial(found, at), _partial(drawn, at)
    rows = []
    for i, x in enumerate(names):
        for j, y in enumerate(names[:i]):
            if given not in (x, y):
                estimate = interval(float(found[i, j]), drawn[:, i, j], count)
                rows.append((y, x, estimate.value, estimate.low, estimate.high, count, len(values)))
    return pd.DataFrame(rows, columns=["x", "y", "r", "r_low", "r_high", "n", "tokens"])


def _sums(values: Float[np.ndarray, "n k"], group: Int[np.ndarray, " n"]) -> Float[np.ndarray, "g k1 k1"]:
    """Σ v vᵀ of each group, v with a leading 1: its count, sums and sums of products."""
    ones = np.column_stack([np.ones(len(values)), values])
    order = np.argsort(group, kind="stable")
    parts = np.split(ones[order], np.cumsum(np.bincount(group))[:-1])
    return np.stack([part.T @ part for part in parts])


def _correlation(sums: Float[np.ndarray, "r k1 k1"]) -> Float[np.ndarray, "r k k"]:
    count = sums[:, :1, :1]
    mean = sums[:, :1, 1:] / count
    covariance = sums[:, 1:, 1:] / count - mean.swapaxes(1, 2) * mean
    spread = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0))
    return _ratio(covariance, spread[:, :, None] * spread[:, None, :])


def _partial(r: np.ndarray, at: int) -> np.ndarray:
    """Correlations with column `at` held fixed: (r_xy − r_xz r_yz) / √((1 − r_xz²)(1 − r_yz²))."""
    z = r[..., :, at]
    left = np.sqrt(np.maximum(1 - z**2, 0))
    return _ratio(r - z[..., :, None] * z[..., None, :], left[..., :, None] * left[..., None, :])


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 1e-9)
