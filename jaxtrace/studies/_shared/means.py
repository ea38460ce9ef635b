"""Means of many columns at once, with intervals over prompts or over answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from jaxtrace.statistics.intervals import Estimate, interval


def prompt_means(
    frame: pd.DataFrame, groups: pd.Series, *, seed: int = 0, resamples: int = 1000
) -> dict[str, Estimate]:
    """Return the mean of each column with its interval, as `bootstrap(np.mean, …, groups=…)` gives for one column.

    Args:
      frame: one row per observation; NaN is ignored, column by column.
      groups: prompt of each row; prompts are resampled with all their rows.

    Returns:
      Column → estimate, whose n is the number of prompts with a value.
    """
    values = frame.to_numpy(float)
    _, group = np.unique(groups, return_inverse=True)
    finite = ~np.isnan(values)
    size = int(group.max()) + 1
    sums, counts = (np.zeros((size, values.shape[1])) for _ in range(2))
    np.add.at(sums, group, np.where(finite, values, 0.0))
    np.add.at(counts, group, finite)
    weights = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=resamples)
    means, resampled = _ratio(sums.sum(0), counts.sum(0)), _ratio(weights @ sums, weights @ counts)
    prompts = (counts > 0).sum(0)
    return {name: interval(float(means[i]), resampled[:, i], int(prompts[i])) for i, name in enumerate(map(str, frame))}


def mean_intervals(values: Float[np.ndarray, "answers columns"]) -> pd.DataFrame:
    """Return column means, NaN ignored, with 95 % t intervals over answers: mean, mean_low, mean_high, n."""
    n = np.isfinite(values).sum(0)
    mean = _ratio(np.nansum(values, 0), n.astype(float))
    squares = np.nansum((values - mean) ** 2, 0)
    freedom = np.maximum(n - 1, 1)
    half = np.where(n > 1, stats.t.ppf(0.975, freedom) * np.sqrt(squares / freedom / np.maximum(n, 1)), np.nan)
    return pd.DataFrame({"mean": mean, "mean_low": mean - half, "mean_high": mean + half, "n": n})


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
