"""Everything that distinguishes one decoder from another, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LinearScaling:
    """Every wavelength stretched by `factor` (Gemma 3's full-attention layers)."""

    factor: float


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3's frequency scaling: long wavelengths are divided by `factor`, short ones kept, those between blended."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int


@dataclass(frozen=True)
class Rope:
    """Rotary positions.

    Attributes:
      theta: base of the wavelengths.
      scaling: of them, or None.
    """

    theta: float = 10_000.0
    scaling: Llama3Scaling | LinearScaling | None = None


@dataclass(frozen=True)
class LayerKind:
    """What may differ from layer to layer.

    Attributes:
      window: how many keys a query sees, itself included; None for all.
      rope: rotary positions, or None for none.
      cross_attention: the layer attends to an image instead of the text, and is skipped where there is none.
    """

    window: int | None = None
    rope: Rope | None = Rope()
    cross_attention: bool = False


@dataclass(frozen=True)
class VisionConfig:
    """The image encoder of Llama 3.2 Vision: a tiled ViT, its global layers, and a projection into the decoder.

    Attributes:
      embed: width of its residual stream.
      layers: of the first transformer.
      global_layers: gated layers of the second.
      heads: attention heads; they divide `embed`.
      feed_forward: hidden width of the feed-forward block.
      image_size: pixels along one side of a tile.
      patch_size: pixels along one side of a patch.
      channels: of the image.
      max_tiles: most tiles of one image.
      aspect_ratios: (height, width) in tiles that an image may have; their ids count from 1, 0 is no image.
      outputs: layers (0-based) of the first transformer whose outputs are shown to the decoder beside the last, as
        transformers ≥ 4.57 reads `intermediate_layers_indices`; Meta's own code takes the inputs of those layers.
      norm_eps: added to the variance inside layer norms.
    """

    embed: int
    layers: int
    global_layers: int
    heads: int
    feed_forward: int
    image_size: int
    patch_size: int
    channels: int
    max_tiles: int
    aspect_ratios: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]
    norm_eps: float = 1e-5

    @property
    def patches(self) -> int:
        """Vectors that the decoder sees of one tile: its patches and the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1

    @property
    def output_width(self) -> int:
        """Width of what is projected into the decoder: the last output and those of `outputs`."""
        return self.embed * (1 + len(self.outputs))


@dataclass(frozen=True)
class DecoderConfig:
    """The shape and the choices of a decoder; hashable, static under jit.

    Attributes:
      family: a key of `jaxtrace.models.families.FAMILIES`.
      vocab: entries of the vocabulary (V).
      embed: width of the residual stream (D).
      layers: number of blocks (L).
      heads: query heads (N).
      kv_heads: key/value heads (K); divides `heads`.
      head_dim: width of a head (H).
      feed_forward: hidden width of the feed-forward block (F).
      context: longest sequence the model was made for.
      pattern: kinds of layers; layer i (0-based) has pattern[i % len(pattern)].
      norm: RMS norms, or layer norms with a bias.
      norm_eps: added to the mean square (or variance) inside norms.
      norm_offset: added to the weight of RMS norms (1 in Gemma).
      post_norms: norms also after attention and feed-forward, before they are added to the stream.
      qk_norm: RMS norms over each head's queries and keys.
      embedding_scale: factor on embeddings.
      query_scale: factor on attention scores; None for 1/√H.
      score_soft_cap: attention scores become cap · tanh(scores / cap).
      logit_soft_cap: the same for logits.
      activation: of the feed-forward block.
      gated: feed-forward is down(act(gate(x)) · up(x)); otherwise down(act(up(x))).
      learned_positions: an embedding of every position is added to that of the token.
      qkv_bias: biases on q, k and v.
      output_bias: a bias on o.
      feed_forward_bias: biases in the feed-forward block.
      tied: the unembedding is the embedding.
      extra_tokens: rows of the embedding beyond the vocabulary, for tokens that are read and never predicted.
      image_token: id that stands for an image in a text, or None.
      vision: the image encoder that cross-attention layers look at, or None.
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
    pattern: tuple[LayerKind, ...] = (LayerKind(),)
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    norm_offset: float = 0.0
    post_norms: bool = False
    qk_norm: bool = False
    embedding_scale: float = 1.0
    query_scale: float | None = None
    score_soft_cap: float | None = None
    logit_soft_cap: float | None = None
    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    gated: bool = True
    learned_positions: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    feed_forward_bias: bool = False
    tied: bool = False
    extra_tokens: int = 0
    image_token: int | None = None
    vision: VisionConfig | None = None

    @property
    def scale(self) -> float:
        """Factor on attention scores."""
        return self.head_dim**-0.5 if self.query_scale is None else self.query_scale

    def kind(self, layer: int) -> LayerKind:
        """Kind of a layer (0-based)."""
        return self.pattern[layer % len(self.pattern)]

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """Kinds of all layers."""
        return tuple(self.kind(layer) for layer in range(self.layers))

    def kv_bytes(self, tokens: int, bytes_per_element: int = 4) -> int:
        """Bytes of a key/value cache of so many tokens: 2 · K · H · bytes · tokens for each layer of self-attention."""
        layers = sum(not kind.cross_attention for kind in self.kinds)
        return layers * 2 * self.kv_heads * self.head_dim * bytes_per_element * tokens


def pattern_of(kinds: Sequence[LayerKind]) -> tuple[LayerKind, ...]:
    """The shortest pattern whose repetition gives the kinds of all layers."""
    for period in range(1, len(kinds)):
        if all(kind == kinds[i % period] for i, kind in enumerate(kinds)):
            return tuple(kinds[:period])
    return tuple(kinds)
