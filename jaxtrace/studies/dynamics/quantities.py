"""Quantities that a trace does not record: head dispersion in each sense of its name, and bytes of the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from jaxtyping import Float

from jaxtrace.studies.dynamics.settings import HDIKind

MIB = 2**20
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


@dataclass(frozen=True)
class KVMemory:
    """Memory of a cached token.

    Attributes:
      per_layer: bytes of one token by layer, from 1: 2 · K · H · bytes per element in layers with keys and values of
        their own.
    """

    per_layer: Mapping[int, int]

    @classmethod
    def from_info(cls, info: dict[str, Any], bytes_per_element: int | None = None) -> KVMemory | None:
        """Return the cache memory of a trace, or None if its `info` lacks the cache's shape.

        Args:
          bytes_per_element: bytes of an element in another cache; None for the trace's own.
        """
        if "cache" not in info:
            return None
        cache = info["cache"]
        width = cache["bytes"] if bytes_per_element is None else bytes_per_element
        elements = 2 * width * np.multiply(cache["kv_heads"], cache["head_dim"])
        by_layer = np.broadcast_to(elements, len(cache["layers"])).tolist()
        return cls(dict(zip(cache["layers"], by_layer, strict=True)))

    def layer_bytes(self, layer: int, tokens: int) -> int:
        """Return the bytes of a number of tokens in one layer: 0 in the embedding and in layers without a cache."""
        return self.per_layer.get(layer, 0) * tokens

    def mib(self, tokens: int) -> float:
        """Return the MiB of a number of tokens in all layers."""
        return sum(self.per_layer.values()) * tokens / MIB
