"""Everything that distinguishes one decoder from another, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's frequency scaling: long wavelengths are divided by `factor`, short ones kept, those between blended."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True)
class DecoderConfig:
    """The shape and the choices of a decoder; hashable, static under jit.

    Attributes:
      family: "llama".
      vocab: entries of the vocabulary (V).
      embed: width of the residual stream (D).
      layers: number of blocks (L).
      heads: query heads (N).
      kv_heads: key/value heads (K); divides `heads`.
      head_dim: width of a head (H).
      feed_forward: hidden width of the feed-forward block (F).
      context: longest sequence the model was made for.
      norm_eps: added to the mean square inside RMS norms.
      rope_theta: base of the rotary wavelengths.
      rope_scaling: Llama 3 scaling of them, or None.
      attention_bias: biases on q, k, v and o.
      feed_forward_bias: biases on gate, up and down.
      tied: the unembedding is the embedding.
    """

    family: str
    vocab: int
    embed: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    context: int
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    attention_bias: bool = False
    feed_forward_bias: bool = False
    tied: bool = False

    @property
    def scale(self) -> float:
        """Factor on attention scores."""
        return self.head_dim**-0.5

    def kv_bytes(self, tokens: int, bytes_per_element: int = 4) -> int:
        """Bytes of a key/value cache of this many tokens: L · 2 · K · H · bytes · tokens."""
        return self.layers * 2 * self.kv_heads * self.head_dim * bytes_per_element * tokens
