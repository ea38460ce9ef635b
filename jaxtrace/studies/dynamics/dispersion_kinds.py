"""The head dispersion index in each sense of its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import numpy as np
from jaxtyping import Float

from jaxtrace.studies.dynamics.settings import HDIKind

HDI_UNITS: dict[HDIKind, str] = dict.fromkeys(get_args(HDIKind), "in nats")
HDI_UNITS |= {"var": "in nats²", "cv": "without a unit"}


def dispersion_metric(kind: HDIKind) -> str:
    """Return the name of the metric that a kind is computed from."""
    return "head_jsd" if kind == "jsd" else "attention_entropy"


def dispersion(metrics: Mapping[str, np.ndarray], kind: HDIKind) -> Float[np.ndarray, "steps layers"]:
    """Return the dispersion over a layer's heads, by step and layer.

    Args:
      metrics: `attention_entropy` [steps, layers, heads]; for "jsd" `head_jsd` [steps, layers].
      kind: statistic of the attention entropies over query heads: "std" (population; nats, the metric `hdi`), "var"
        (nats²), "cv" (std / mean), "fano" (var / mean, nats), "range" (nats). "jsd" is the Jensen–Shannon divergence
        of the heads' weights (nats): where heads attend, not how broadly. Ratios are NaN for mean 0.
    """
    values = np.asarray(metrics[dispersion_metric(kind)], float)
    if kind == "jsd":
        return values
    if kind == "range":
        return np.ptp(values, axis=-1)
    spread = values.std(-1) if kind in ("std", "cv") else values.var(-1)
    if kind in ("std", "var"):
        return spread
    mean = values.mean(-1)
    return np.divide(spread, mean, out=np.full_like(mean, np.nan), where=mean > 0)
