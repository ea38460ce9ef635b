"""Layers of a decoder: feed-forward, per-layer inputs, and the block that joins them with attention or a delta net."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtrace.kernels import linear
from jaxtrace.models.activations import ACTIVATIONS
from jaxtrace.models.attention import Attention, AttentionOutputs, AttentionTrace, Positions
from jaxtrace.models.cache import LayerCache, RecurrentState
from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.delta_net import GatedDeltaNet
from jaxtrace.models.experts import ExpertFeedForward
from jaxtrace.models.interventions import Interventions
from jaxtrace.models.norms import RMSNorm, normed, stream_norm
from jaxtrace.models.on_mesh import shard_rows
from jaxtrace.models.parameters import add_bias, optional_bias, random_weight, tanh_gated
from jaxtrace.models.router import RouterOutputs, RouterTrace


class FeedForward(nnx.Module):
    """down(act(gate(x)) · up(x)), or down(act(up(x))) without a gate."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs) -> None:
        d, f, bias = config.embed_dim, config.feed_forward, config.feed_forward_bias
        self.activation = config.activation
        self.gate = random_weight(rngs, f, d) if config.gated else None
        self.up, self.down = random_weight(rngs, f, d), random_weight(rngs, d, f)
        self.gate_bias = optional_bias(bias and config.gated, f)
        self.up_bias, self.down_bias = optional_bias(bias, f), optional_bias(bias, d)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        act = ACTIVATIONS[self.activation]
        up = add_bias(linear(x, self.up[...]), self.up_bias)
        hidden = act(up) if self.gate is None else act(add_bias(linear(x, self.gate[...]), self.gate_bias)) * up
        return add_bias(linear(hidden, self.down[...]), self.down_bias)


class FeedForwardBesideExperts(ExpertFeedForward):
    """norm(feed_forward(norm(x))) + norm(experts(norm(x))), where the router reads x."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs) -> None:
        super().__init__(config, rngs)
        self.dense = FeedForward(config, rngs)
        self.dense_norm, self.post_dense_norm = stream_norm(config), stream_norm(config)
        self.expert_norm, self.post_expert_norm = stream_norm(config), stream_norm(config)

    def __call__(self, x: Float[Array, "B T D"], outputs: RouterOutputs) -> tuple[Float[Array, "B T D"], RouterTrace]:
        chosen, trace = self.choose(x, outputs)
        out = self.post_expert_norm(self.compute(self.expert_norm(x), chosen))
        return self.post_dense_norm(self.dense(self.dense_norm(x))) + out, trace


def feed_forward(config: DecoderConfig, rngs: nnx.Rngs) -> FeedForward | ExpertFeedForward:
    """Build the feed-forward block of a layer."""
    if config.experts is None:
        return FeedForward(config, rngs)
    return (FeedForwardBesideExperts if config.experts.beside_dense else ExpertFeedForward)(config, rngs)


class LayerInputs(nnx.Module):
    """Inputs of all layers: (norm(projection · x / √D) + √P · embedding(token)) / √2, for the tokens' embeddings x."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs) -> None:
        layers, width, d = config.num_layers, config.layer_input, config.embed_dim
        self.shape = layers, width
        self.embedding = random_weight(rngs, config.layer_input_vocab, layers * width)
        self.projection = random_weight(rngs, layers * width, d)
        self.norm = RMSNorm(config, width)

    def __call__(self, x: Float[Array, "B T D"], tokens: Int[Array, "B T"]) -> Float[Array, "L B T P"]:
        shape, (_, width) = (*tokens.shape, *self.shape), self.shape
        projected = self.norm((linear(x, self.projection[...]) * x.shape[-1] ** -0.5).reshape(shape))
        looked_up = jnp.take(self.embedding[...], tokens, axis=0).reshape(shape)
        looked_up = looked_up * jnp.asarray(width**0.5, x.dtype)
        return jnp.moveaxis(shard_rows((projected + looked_up) * 2**-0.5), 2, 0)


class LayerInput(nnx.Module):
    """Term that a layer adds for its input: norm(down(act(gate(x)) · input))."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs) -> None:
        self.activation = config.activation
        self.gate = random_weight(rngs, config.layer_input, config.embed_dim)
        self.down = random_weight(rngs, config.embed_dim, config.layer_input)
        self.norm = stream_norm(config)

    def __call__(self, x: Float[Array, "B T D"], layer_input: Float[Array, "B T P"]) -> Float[Array, "B T D"]:
        hidden = ACTIVATIONS[self.activation](linear(x, self.gate[...])) * layer_input
        return self.norm(linear(hidden, self.down[...]))


@dataclasses.dataclass(frozen=True)
class LayerOutputs:
    """Metrics that a block is asked to return."""

    attention: AttentionOutputs
    router: RouterOutputs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerTrace:
    """Metrics of one layer."""

    attention: AttentionTrace
    router: RouterTrace

    @classmethod
    def absent(cls, shape: tuple[int, ...], config: DecoderConfig, outputs: LayerOutputs) -> LayerTrace:
        """Return the trace of a skipped layer; `shape` is (B, T)."""
        attention = AttentionTrace.absent(shape, config.num_heads, outputs.attention)
        return cls(attention, RouterTrace.absent(shape, config.chosen_experts, outputs.router))


class Block(nnx.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x)); a gated delta net may replace attention.

    Norms after attention and feed-forward precede the sums; a cross-attention layer scales both terms by tanh gates. A
    parallel block is x + attention(norm(x)) + feed_forward(norm(x)). The layer's input, if it has one, adds a last
    term. A layer's scalar multiplies the result.
    """

    def __init__(self, config: DecoderConfig, kind: LayerKind, rngs: nnx.Rngs) -> None:
        self.chosen_experts = config.chosen_experts
        config = config.sized(kind)
        self.parallel, self.num_heads = config.parallel, config.num_heads
        before, after = config.norm_placement != "after", config.norm_placement != "before"
        self.attention_norm = stream_norm(config) if before else None
        self.attention = Attention(config, kind, rngs) if kind.delta_net is None else None
        self.delta_net = None if kind.delta_net is None else GatedDeltaNet(config, kind, rngs)
        self.post_attention_norm = stream_norm(config) if after else None
        norms_inside = config.experts is not None and config.experts.beside_dense
        self.feed_forward_norm = stream_norm(config) if before and not norms_inside else None
        self.feed_forward = feed_forward(config, rngs)
        self.post_feed_forward_norm = stream_norm(config) if after else None
        gated = kind.cross_attention
        self.attention_gate, self.feed_forward_gate = (nnx.Param(jnp.zeros(1)) if gated else None for _ in range(2))
        self.layer_input = LayerInput(config, rngs) if config.layer_input else None
        self.scalar = nnx.Param(jnp.ones(1)) if config.layer_scalar else None

    def __call__(
        self,
        x: Float[Array, "B T D"],
        cache: LayerCache | RecurrentState,
        positions: Positions,
        outputs: LayerOutputs,
        ablation: Interventions,
        layer_input: Float[Array, "B T P"] | None = None,
    ) -> tuple[Float[Array, "B T D"], LayerCache | RecurrentState, LayerTrace]:
        before = x
        if isinstance(cache, RecurrentState):
            assert self.delta_net is not None
            with jax.named_scope("delta_net"):
                out, cache = self.delta_net(normed(x, self.attention_norm), cache, positions.count)
            attention = AttentionTrace.absent(x.shape[:2], self.num_heads, outputs.attention)
        else:
            assert self.attention is not None
            with jax.named_scope("attention"):
                read = normed(x, self.attention_norm)
                out, cache, attention = self.attention(read, cache, positions, outputs.attention, ablation)
        x = x + tanh_gated(normed(out, self.post_attention_norm), self.attention_gate)
        with jax.named_scope("feed_forward"):
            read = normed(before if self.parallel else x, self.feed_forward_norm)
            if isinstance(self.feed_forward, ExpertFeedForward):
                out, router = self.feed_forward(read, outputs.router)
            else:
                out = self.feed_forward(read)
                router = RouterTrace.absent(read.shape[:2], self.chosen_experts, outputs.router)
            out = normed(out, self.post_feed_forward_norm)
        if self.feed_forward_gate is not None:
            assert positions.image_mask is not None
            out = jnp.where(positions.image_mask.visible.any(-1)[..., None], out, 0)
        x = x + tanh_gated(out, self.feed_forward_gate)
        if self.layer_input is not None:
            assert layer_input is not None
            with jax.named_scope("layer_input"):
                x = x + self.layer_input(x, layer_input)
        if self.scalar is not None:
            x = x * self.scalar[...]
        x = x if ablation.layers is None else jnp.where(ablation.layers, before, x)
        return x, cache, LayerTrace(attention, router)

    def attention_weights(
        self, x: Float[Array, "B T D"], cache: LayerCache, positions: Positions, heads: Sequence[int]
    ) -> Float[Array, "B T A S"]:
        """Return `Attention.weights` of the residual stream before the layer."""
        assert self.attention is not None
        return self.attention.weights(normed(x, self.attention_norm), cache, positions, heads)
