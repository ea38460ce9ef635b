"""Classes deterministic, exploratory and balanced of arXiv 2604.03589, by three rules."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from jaxtrace.statistics.intervals import Estimate
from jaxtrace.statistics.trends import ols_slope

EntropyClass = Literal["deterministic", "exploratory", "balanced", "undecided"]
CLASSES: tuple[EntropyClass, ...] = get_args(EntropyClass)


def drift_class(drift: float, tau: float = 0.30) -> EntropyClass:
    """Return the class by late − early output entropy (nats): ≤ −τ deterministic, ≥ +τ exploratory, else balanced."""
    return "deterministic" if drift <= -tau else "exploratory" if drift >= tau else "balanced"


def level_class(mean: float, spread: float, low: float = 0.3, wide: float = 0.8) -> EntropyClass:
    """Return the class by output entropy (nats): mean < low deterministic, else deviation > wide exploratory."""
    return "deterministic" if mean < low else "exploratory" if spread > wide else "balanced"


def robust_class(slope: Estimate, tau: float = 0.30) -> EntropyClass:
    """Return the class by the slope of output entropy on t/T (nats); undecided if its interval holds −τ or +τ."""
    if slope.high < -tau:
        return "deterministic"
    if slope.low > tau:
        return "exploratory"
    return "balanced" if -tau < slope.low and slope.high < tau else "undecided"


def early_late(values: Float[np.ndarray, " steps"], share: float = 0.2) -> tuple[float, float]:
    """Return means over the first and the last share of the steps, rounded down to whole steps but at least one."""
    count = max(1, int(share * len(values)))
    return float(np.mean(values[:count])), float(np.mean(values[-count:]))


def relative_time(steps: int) -> Float[np.ndarray, " steps"]:
    """Return t/T for t = 1 … T."""
    return np.arange(1, steps + 1) / steps


def entropy_slope(entropy: Float[np.ndarray, " steps"], *, seed: int = 0, resamples: int = 1000) -> Estimate:
    """Return the least-squares slope of output entropy on t/T (nats), with an interval from blocks of T^(1/3) steps.

    Raises:
      StudyError: there are fewer than three steps.
    """
    block = max(1, round(len(entropy) ** (1 / 3)))
    return ols_slope(entropy, relative_time(len(entropy)), block=block, seed=seed, resamples=resamples)
