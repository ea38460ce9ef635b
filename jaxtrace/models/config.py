"""The configuration of a decoder: everything that distinguishes one decoder from another, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jaxtrace.models.rope_config import DEFAULT_ROPE, Rope
from jaxtrace.models.vision_config import VisionConfig

INIT_STD = 0.02  # standard deviation of random initial weights


@dataclass(frozen=True)
class PositionScaling:
    """Scaling of queries by position, 1 + strength · log(1 + ⌊(position + offset) / context⌋): Llama 4, Ministral 3."""

    strength: float
    context: int
    offset: int = 0


@dataclass(frozen=True)
class DeltaNet:
    """A gated delta net (Yang et al. 2024) in the place of attention, after a causal convolution of each channel.

    Attributes:
      key_heads: number of heads of queries and keys (K); divides `value_heads`.
      value_heads: number of heads of values (N), each with a state of its own.
      key_dim: width of a query or key (H).
      value_dim: width of a value (W).
      conv: number of positions that the convolution sees, its own included.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv: int

    def state_bytes(self, bytes_per_element: int = 4) -> int:
        """Return the bytes of a row's state: the inputs of the convolution, and float32 matrices of the value heads."""
        conv = (self.conv - 1) * self.channels * bytes_per_element
        return conv + 4 * self.value_heads * self.key_dim * self.value_dim

    @property
    def channels(self) -> int:
        """Number of channels of the convolution: all queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim


@dataclass(frozen=True)
class LayerKind:
    """Properties of a layer that may differ from layer to layer.

    Attributes:
      window: number of keys that a query attends to, its own included; None for all.
      rope: rotary position embedding, or None.
      chunk: number of positions of a chunk, if a query attends only to keys of its own chunk (Llama 4); None without
        chunks, and in a layer with a window.
      position_scaling: scaling of queries by their position, after rotation, or None.
      cross_attention: True if the layer attends to images instead of the text; without an image it is skipped.
      head_dim: width of a head; None for the decoder's.
      kv_heads: number of key/value heads; None for the decoder's.
      feed_forward: hidden width of the feed-forward block; None for the decoder's.
      dense: True if the feed-forward block is a dense one, also where the decoder has experts.
      keys_as_values: True if the values are the keys before their norm and rotation.
      kv_source: earlier layer (0-based) whose keys and values the layer attends to, which then has none of its own;
        None for its own. A decoder with such a layer has a pattern of all its layers.
      delta_net: gated delta net in the place of attention, or None. Such a layer has no attention weights.
    """

    window: int | None = None
    rope: Rope | None = DEFAULT_ROPE
    chunk: int | None = None
    position_scaling: PositionScaling | None = None
    cross_attention: bool = False
    head_dim: int | None = None
    kv_heads: int | None = None
    feed_forward: int | None = None
    dense: bool = False
    keys_as_values: bool = False
    kv_source: int | None = None
    delta_net: DeltaNet | None = None

    @property
    def kept(self) -> int | None:
        """Number of positions before a call's first that its queries may need; None for all.

        It is one position more than a query sees, or one chunk more, as a cache begins with a whole chunk: no query
        then sees the first kept position, unless it is position 0.
        """
        return self.window if self.chunk is None else 2 * self.chunk

    @property
    def attends_to_text(self) -> bool:
        """True if the layer has attention weights over the positions of the text."""
        return not self.cross_attention and self.delta_net is None

    @property
    def caches_text(self) -> bool:
        """True if the layer has keys and values of the text of its own."""
        return self.attends_to_text and self.kv_source is None


@dataclass(frozen=True)
class ClampedGate:
    """Gated activation of gpt-oss: (up + 1) · gate · sigmoid(alpha · gate), of clamped numbers.

    Attributes:
      limit: largest value of the gate, and largest absolute value of up.
      alpha: factor inside the sigmoid.
    """

    limit: float
    alpha: float


@dataclass(frozen=True)
class Experts:
    """Experts in the place of the feed-forward block: a router chooses some of them for each token.

    A token's output is the sum of its chosen experts' outputs, each times the expert's score, and of the shared
    expert's. A softmax over the chosen experts alone is a softmax over all of them, normalised.

    Attributes:
      number: number of experts (E).
      chosen: number of experts for each token, those with the highest scores; at most `number`.
      feed_forward: hidden width of each expert (F).
      scoring: function from the router's logits to scores: "softmax" over all experts, or "sigmoid" of each logit.
      selection_bias: True if a learned bias is added to the scores for the choice alone, not for the sum.
      normalised: True if the scores of the chosen experts are divided by their sum.
      scale: factor on the scores, after the division.
      scores_on_inputs: True if a score multiplies the input of its expert, not the output (Llama 4).
      shared: hidden width of the shared expert, which every token uses; 0 for none. Several shared experts are one of
        their total width.
      shared_gate: True if the shared expert's output is multiplied by the sigmoid of a learned product with the token.
      router_norm: True if the router reads the residual stream after an RMS norm of its own, divided by √D.
      expert_scale: True if the scores of the chosen experts are multiplied by learned scalars, one of each expert.
      beside_dense: True if a dense feed-forward block adds to the experts' output; each of the two has norms of its own
        before and after it.
      router_bias: True if the router has a bias.
      bias: True if the experts have biases.
      clamped: activation in the place of the decoder's, or None.
    """

    number: int
    chosen: int
    feed_forward: int
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    selection_bias: bool = False
    normalised: bool = True
    scale: float = 1.0
    scores_on_inputs: bool = False
    shared: int = 0
    shared_gate: bool = False
    router_norm: bool = False
    expert_scale: bool = False
    beside_dense: bool = False
    router_bias: bool = False
    bias: bool = False
    clamped: ClampedGate | None = None


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and options of a decoder; hashable, static under jit.

    Attributes:
      family: key of `jaxtrace.models.families.FAMILIES`.
      vocab_size: number of tokens of the vocabulary (V).
      embed_dim: width of the residual stream (D).
      num_layers: number of blocks (L).
      num_heads: number of query heads (N).
      kv_heads: number of key/value heads (K) of layers whose kind has none of its own; divides `num_heads`.
      head_dim: width of a head (H) of layers whose kind has none of its own.
      feed_forward: hidden width of the feed-forward block (F) of layers whose kind has none of its own.
      context: longest sequence that the model supports, in tokens.
      pattern: kinds of layers; layer i (0-based) is of kind pattern[i % len(pattern)].
      norm: "rms" for RMS norms, "layer" for layer norms with a bias.
      norm_eps: constant added to the mean square (or variance) inside norms.
      norm_offset: constant added to the weight of RMS norms (1 in Gemma).
      norm_placement: "before" if a norm precedes attention and feed-forward, "after" if one follows each, before its
        output is added to the stream, "around" for both.
      parallel: True if attention and feed-forward both read the block's input; False if they follow each other.
      qk_norm: "head" for RMS norms over each head's queries and keys, "width" for RMS norms over those of all heads
        together, "rotated" for norms without weights over each head of layers with rotary positions, None for no norms.
      value_norm: True if each head's values pass through an RMS norm without weights.
      embedding_scale: factor on embeddings.
      query_scale: factor on attention scores; None for 1/√H.
      score_soft_cap: soft-cap of attention scores, cap · tanh(scores / cap); None for no cap.
      learned_sink: True if each query head has a learned logit beside its scores, a sink without key and value (OpenAI
        2025, "gpt-oss-120b & gpt-oss-20b Model Card").
      logit_soft_cap: soft-cap of logits; None for no cap.
      activation: activation function of the feed-forward block.
      gated: True for down(act(gate(x)) · up(x)), False for down(act(up(x))).
      experts: experts in the place of the feed-forward blocks, except in layers whose kind is dense; None for none.
      learned_positions: True if a learned embedding of the position is added to the token's embedding.
      qkv_bias: True if q, k and v have biases.
      output_bias: True if o has a bias.
      output_gate: True if each head's output is multiplied by the sigmoid of a gate, projected like a query.
      feed_forward_bias: True if the feed-forward block has biases.
      tied: True if the embedding is also the unembedding.
      layer_input: width of the per-layer embeddings (P), a second table with an embedding of each token for each layer,
        which adds a projection of it after its feed-forward block; 0 for none.
      layer_input_vocab: number of tokens of the table of per-layer embeddings; at least `vocab_size`.
      layer_scalar: True if each layer's output is multiplied by a learned scalar.
      extra_tokens: number of rows of the embedding beyond the vocabulary, for tokens that are never predicted.
      token_aliases: (token, other token whose embeddings it has) pairs.
      image_token: id of the token that marks an image in a text, or None.
      vision: image encoder whose outputs cross-attention layers attend to, or None.
    """

    family: str
    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    context: int
    pattern: tuple[LayerKind, ...] = (LayerKind(),)
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = 1e-5
    norm_offset: float = 0.0
    norm_placement: Literal["before", "around", "after"] = "before"
    parallel: bool = False
    qk_norm: Literal["head", "width", "rotated"] | None = None
    value_norm: bool = False
    embedding_scale: float = 1.0
    query_scale: float | None = None
    score_soft_cap: float | None = None
    learned_sink: bool = False
    logit_soft_cap: float | None = None
    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    gated: bool = True
    experts: Experts | None = None
    learned_positions: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    output_gate: bool = False
    feed_forward_bias: bool = False
    tied: bool = False
    layer_input: int = 0
    layer_input_vocab: int = 0
    layer_scalar: bool = False
    extra_tokens: int = 0
    token_aliases: tuple[tuple[int, int], ...] = ()
    image_token: int | None = None
    vision: VisionConfig | None = None

    @property
    def scale(self) -> float:
        """Factor on attention scores."""
        return self.head_dim**-0.5 if self.query_scale is None else self.query_scale

    @property
    def chosen_experts(self) -> int:
        """Number of experts that a router chooses for each token; 0 for a decoder whose layers are all dense."""
        return 0 if self.experts is None or all(kind.dense for kind in self.kinds) else self.experts.chosen

    def kind(self, layer: int) -> LayerKind:
        """Return the kind of a layer (0-based)."""
        return self.pattern[layer % len(self.pattern)]

    @property
    def kinds(self) -> tuple[LayerKind, ...]:
        """Kinds of all layers."""
        return tuple(self.kind(layer) for layer in range(self.num_layers))

    @property
    def rope_by_length(self) -> bool:
        """True if a layer's rotary positions depend on the row's length."""
        return any(kind.rope is not None and kind.rope.by_length for kind in self.pattern)

    def sized(self, kind: LayerKind) -> DecoderConfig:
        """Return the config with the sizes of one kind of layers in place of the decoder's."""
        names = ("head_dim", "kv_heads", "feed_forward")
        sizes = {name: size for name in names if (size := getattr(kind, name)) is not None}
        return replace(self, experts=None if kind.dense else self.experts, **sizes)

    @property
    def sizes(self) -> tuple[DecoderConfig, ...]:
        """Configs with the sizes of each kind of layers."""
        return tuple(map(self.sized, self.pattern))

    def size_text(self, name: str) -> str:
        """Return a size as text, in all kinds of layers, such as "4 or 16"."""
        return " or ".join(map(str, sorted({getattr(size, name) for size in self.sizes})))

    def kv_bytes(self, tokens: int, bytes_per_element: int = 4) -> int:
        """Return the bytes of a key/value cache: 2 · K · H · bytes per element · tokens per layer that caches text.

        `recurrent_bytes` are not included: they do not grow with the tokens.
        """
        layers = [self.sized(kind) for kind in self.kinds if kind.caches_text]
        return sum(2 * layer.kv_heads * layer.head_dim for layer in layers) * bytes_per_element * tokens

    def recurrent_bytes(self, bytes_per_element: int = 4) -> int:
        """Return the bytes of a row's recurrent states in all layers, whatever its number of tokens."""
        nets = [kind.delta_net for kind in self.kinds if kind.delta_net is not None]
        return sum(net.state_bytes(bytes_per_element) for net in nets)


def pattern_of(kinds: Sequence[LayerKind]) -> tuple[LayerKind, ...]:
    """Return the shortest pattern whose repetition gives the kinds of all layers."""
    for period in range(1, len(kinds)):
        if all(kind == kinds[i % period] for i, kind in enumerate(kinds)):
            return tuple(kinds[:period])
    return tuple(kinds)
