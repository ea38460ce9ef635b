"""Medians with intervals of independent numbers."""

from __future__ import annotations

import numpy as np
from scipy import stats

LEVEL = 0.95  # of the interval of a median
LEAST_PAIRS = 6  # fewer have no interval of this level


def median_interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Return the median of independent numbers, and the ends of its interval from order statistics."""
    ends = stats.quantile_test(ratios, p=0.5).confidence_interval(LEVEL)
    return float(np.median(ratios)), float(ends.low), float(ends.high)
