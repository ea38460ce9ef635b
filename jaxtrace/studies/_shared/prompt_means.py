"""Means over rows that come in prompts, many columns at once."""

from __future__ import annotations

import numpy as np
import pandas as pd

from jaxtrace.statistics.intervals import Estimate, interval


def prompt_means(
    frame: pd.DataFrame, groups: pd.Series, *, seed: int = 0, resamples: int = 1000
) -> dict[str, Estimate]:
    """The mean of each column with its interval: what `bootstrap(np.mean, …, groups=…)` gives, for all of them at once.

    Args:
      frame: a row per observation; what is NaN is left out of its column.
      groups: the prompt of each row; prompts are resampled, with all their rows.
      seed, resamples: of the intervals.

    Returns:
      Column → estimate, whose n is the number of prompts that have a value.
    """
    values = frame.to_numpy(float)
    _, group = np.unique(groups, return_inverse=True)
    there = ~np.isnan(values)
    size = int(group.max()) + 1
    sums, counts = (np.zeros((size, values.shape[1])) for _ in range(2))
    np.add.at(sums, group, np.where(there, values, 0.0))
    np.add.at(counts, group, there)
    weights = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=resamples)
    means, drawn = _ratio(sums.sum(0), counts.sum(0)), _ratio(weights @ sums, weights @ counts)
    units = (counts > 0).sum(0)
    return {
        name: interval(float(means[i]), drawn[:, i], int(units[i])) for i, name in enumerate(map(str, frame.columns))
    }


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)
