"""Bytes of the key/value cache behind a trace, by formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MIB = 2**20


@dataclass(frozen=True)
class KVMemory:
    """What a cached token costs.

    Attributes:
      layers: those of self-attention, from 1.
      per_layer: bytes of one token in one of them: 2 · K · H · bytes per element.
    """

    layers: frozenset[int]
    per_layer: int

    @classmethod
    def of(cls, info: dict[str, Any], bytes_per_element: int | None = None) -> KVMemory | None:
        """That of a trace's `info`; None for a trace that does not say the shape of its cache.

        Args:
          info: of the trace.
          bytes_per_element: of another cache than the trace's own; None for its own.
        """
        if "cache" not in info:
            return None
        cache = info["cache"]
        width = cache["bytes"] if bytes_per_element is None else bytes_per_element
        return cls(frozenset(cache["layers"]), 2 * cache["kv_heads"] * cache["head_dim"] * width)

    def layer_bytes(self, layer: int, tokens: int) -> int:
        """Bytes of so many tokens in one layer: 0 in the embedding and in layers that look at images."""
        return self.per_layer * tokens * (layer in self.layers)

    def mib(self, tokens: int) -> float:
        """MiB of so many tokens in all layers."""
        return len(self.layers) * self.per_layer * tokens / MIB
