"""Bytes of the key/value cache behind a trace, by formula."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MIB = 2**20


@dataclass(frozen=True)
class KVMemory:
    """Memory of a cached token.

    Attributes:
      layers: numbers of the self-attention layers, from 1.
      per_layer: bytes of one token in one layer: 2 · K · H · bytes per element.
    """

    layers: frozenset[int]
    per_layer: int

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
        return cls(frozenset(cache["layers"]), 2 * cache["kv_heads"] * cache["head_dim"] * width)

    def layer_bytes(self, layer: int, tokens: int) -> int:
        """Return the bytes of a number of tokens in one layer: 0 in the embedding and in cross-attention layers."""
        return self.per_layer * tokens * (layer in self.layers)

    def mib(self, tokens: int) -> float:
        """Return the MiB of a number of tokens in all layers."""
        return len(self.layers) * self.per_layer * tokens / MIB
