"""Parts of a decoder as Flax NNX modules. Weights are [out, in], as checkpoints store them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from jaxtrace.kernels import (
    AttentionMoments,
    cross_attention,
    cross_dispersion,
    decode_attention,
    einsum,
    head_dispersion,
    linear,
    prefill_attention,
    soft_capped,
)
from jaxtrace.kernels.attention import visible_keys
from jaxtrace.models.cache import LayerCache
from jaxtrace.models.config import INIT_STD, DecoderConfig, LayerKind, Rope, VisionConfig
from jaxtrace.models.interventions import Interventions
from jaxtrace.models.on_mesh import (
    ROW_AXES,
    Axes,
    dividing_axes,
    dividing_head_axes,
    dividing_kv_head_axes,
    map_shards,
    shard_rows,
)
from jaxtrace.models.rope import Rotation, rotate

ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ImageMask:
    """Image tiles that each token of a call sees.

    Attributes:
      row_tiles: tiles of the row's images, padding tiles included.
      visible: tiles that each token sees. A token before the row's first image sees none: its cross-attention then
        covers all of `row_tiles` and its feed-forward block adds nothing, as in the training of Llama 3.2 Vision.
    """

    row_tiles: Bool[Array, "B M"]
    visible: Bool[Array, "B T M"]


@dataclasses.dataclass(frozen=True)
class Positions:
    """Positions of a call's tokens.

    Attributes:
      start: position of each row's first token.
      rotations: rotations of all tokens, by rotary positions and width of a head.
      image_mask: image tiles that the tokens see, or None.
    """

    start: Int[Array, " B"]
    rotations: dict[tuple[Rope, int], Rotation]
    image_mask: ImageMask | None


@dataclasses.dataclass(frozen=True)
class AttentionOutputs:
    """Attention outputs that a block is asked to return.

    Attributes:
      moments: True for the moments of the weights.
      head_jsd: True for the Jensen–Shannon divergence over heads.
    """

    moments: bool
    head_jsd: bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionTrace:
    """Metrics of one layer's attention; None if not requested, NaN for tokens that attend to nothing."""

    moments: AttentionMoments | None
    head_jsd: Float[Array, "B T"] | None

    @classmethod
    def absent(cls, shape: tuple[int, ...], heads: int, outputs: AttentionOutputs) -> AttentionTrace:
        """Return the trace of a skipped layer, all NaN; `shape` is (B, T)."""
        nothing = jnp.full((*shape, heads), jnp.nan)
        moments = AttentionMoments(*(nothing for _ in dataclasses.fields(AttentionMoments)))
        return cls(moments if outputs.moments else None, nothing[..., 0] if outputs.head_jsd else None)


class RMSNorm(nnx.Module):
    """x / √(mean x² + ε) · (offset + weight), computed in float32; the mean is over the axes of the weight.

    Without a weight the factor is 1, and the mean is over the last axis.
    """

    def __init__(self, config: DecoderConfig, *shape: int, weighted: bool = True) -> None:
        self.weight = nnx.Param(jnp.full(shape, 1.0 - config.norm_offset)) if weighted else None
        self.axes = tuple(range(-len(shape), 0))
        self.eps = config.norm_eps
        self.offset = config.norm_offset

    def __call__(self, x: Float[Array, "*r D"]) -> Float[Array, "*r D"]:
        full = x.astype(jnp.float32)
        full = full * jax.lax.rsqrt(jnp.mean(jnp.square(full), axis=self.axes, keepdims=True) + self.eps)
        if self.weight is None:
            return full.astype(x.dtype)
        weight = self.weight[...]
        if self.offset:
            return (full * (self.offset + weight.astype(jnp.float32))).astype(x.dtype)
        return full.astype(x.dtype) * weight


class LayerNorm(nnx.Module):
    """(x − mean) / √(variance + ε) · weight + bias, computed in float32."""

    def __init__(self, config: DecoderConfig | VisionConfig, width: int) -> None:
        self.weight = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.eps = config.norm_eps

    def __call__(self, x: Float[Array, "*r D"]) -> Float[Array, "*r D"]:
        full = x.astype(jnp.float32)
        full = full - jnp.mean(full, axis=-1, keepdims=True)
        full = full * jax.lax.rsqrt(jnp.mean(jnp.square(full), axis=-1, keepdims=True) + self.eps)
        return (full * self.weight[...] + self.bias[...]).astype(x.dtype)


def stream_norm(config: DecoderConfig) -> RMSNorm | LayerNorm:
    """Build a norm over the residual stream."""
    return (LayerNorm if config.norm == "layer" else RMSNorm)(config, config.embed_dim)


def qk_norm(config: DecoderConfig, kind: LayerKind, heads: int) -> RMSNorm | None:
    """Build the norm over queries or keys; layers of cross-attention always have one."""
    if config.qk_norm == "width":
        return RMSNorm(config, heads, config.head_dim)
    return RMSNorm(config, config.head_dim) if config.qk_norm or kind.cross_attention else None


class Attention(nnx.Module):
    """Grouped-query attention over the cache of the layer, or of the layer `kind.kv_source`."""

    def __init__(self, config: DecoderConfig, kind: LayerKind, rngs: nnx.Rngs) -> None:
        d, n, k, h = config.embed_dim, config.num_heads, config.kv_heads, config.head_dim
        self.config, self.kind = config, kind
        has_k = kind.kv_source is None
        has_v = has_k and not kind.keys_as_values
        projections = ((n, True), (k, has_k), (k, has_v))
        self.q, self.k, self.v = (random_weight(rngs, heads, h, d) if has else None for heads, has in projections)
        self.o = random_weight(rngs, d, n, h)
        self.q_bias, self.k_bias, self.v_bias = (_bias(config.qkv_bias and has, heads, h) for heads, has in projections)
        self.o_bias = _bias(config.output_bias, d)
        self.q_norm, self.k_norm = (
            qk_norm(config, kind, heads) if has else None for heads, has in ((n, True), (k, has_k))
        )
        self.v_norm = RMSNorm(config, h, weighted=False) if config.value_norm and has_k else None

    def __call__(
        self,
        x: Float[Array, "B T D"],
        cache: LayerCache,
        positions: Positions,
        outputs: AttentionOutputs,
        ablation: Interventions,
    ) -> tuple[Float[Array, "B T D"], LayerCache, AttentionTrace]:
        q = self._queries(x, positions)
        if self.kind.cross_attention:
            assert positions.image_mask is not None
            out, trace = self._cross_attend(q, cache, positions.image_mask, outputs)
        else:
            if self.kind.kv_source is None:
                k, v = self.keys_and_values(x)
                cache = _write(cache, *_contain_nonfinite(self._rotated(k, positions), v), positions.start)
            out, trace = self._attend(q, cache, positions.start, outputs)
        if ablation.heads is not None:
            out = jnp.where(ablation.heads[:, None], 0, out)
        d, n, h = self.o[...].shape
        out = linear(out.reshape(*x.shape[:2], n * h), self.o[...].reshape(d, n * h))
        return _add(out, self.o_bias), cache, trace

    def keys_and_values(self, x: Float[Array, "B S D"]) -> tuple[Float[Array, "B S K H"], Float[Array, "B S K H"]]:
        """Return keys, without rotation, and values of a text's residual stream or of image vectors."""
        assert self.k is not None
        k = v = _project(x, self.k, self.k_bias)
        if self.v is not None:
            v = _project(x, self.v, self.v_bias)
        return _normed(k, self.k_norm), _normed(v, self.v_norm)

    def weights(
        self, x: Float[Array, "B T D"], cache: LayerCache, positions: Positions, heads: Sequence[int]
    ) -> Float[Array, "B T A S"]:
        """Return the attention weights of some query heads over the cache, which includes the call's own positions."""
        scores = _head_scores(np.array(heads), self._queries(x, positions), cache.k) * self.config.scale
        position = positions.start[:, None] + jnp.arange(x.shape[1])
        visible, _ = visible_keys(position, scores.shape[-1], self.kind.window)
        return jax.nn.softmax(soft_capped(scores, self.config.score_soft_cap), axis=-1, where=visible[:, :, None])

    def _queries(self, x: Float[Array, "B T D"], positions: Positions) -> Float[Array, "B T N H"]:
        assert self.q is not None
        q = self._rotated(_normed(_project(x, self.q, self.q_bias), self.q_norm), positions)
        if (scaling := self.config.position_scaling) is None:
            return q
        spans = (positions.start[:, None] + jnp.arange(x.shape[1])) // scaling.context
        return q * (1 + scaling.strength * jnp.log1p(spans))[..., None, None].astype(q.dtype)

    def _rotated(self, x: Float[Array, "B T N H"], positions: Positions) -> Float[Array, "B T N H"]:
        rope = self.kind.rope
        return x if rope is None else rotate(x, positions.rotations[rope, self.config.head_dim])

    def _attend(
        self, q: Float[Array, "B T N H"], cache: LayerCache, start: Int[Array, " B"], outputs: AttentionOutputs
    ) -> tuple[Float[Array, "B T N H"], AttentionTrace]:
        options = {
            "scale": self.config.scale,
            "window": self.kind.window,
            "soft_cap": self.config.score_soft_cap,
        }

        def attend(
            q: Array, k: Array, v: Array, start: Array, *, axis_name: Axes | None
        ) -> tuple[Array, AttentionTrace]:
            if q.shape[1] == 1:
                lengths = jnp.minimum(start + 1, k.shape[3])  # a finished row may be past its last slot
                one = decode_attention(q[:, 0], k, v, lengths, moments=outputs.moments, **options)
                out, moments = jax.tree.map(lambda y: y[:, None], one)
            else:
                out, moments = prefill_attention(q, k, v, start, moments=outputs.moments, **options)
            jsd = head_dispersion(q, k, start, axis_name=axis_name, **options) if outputs.head_jsd else None
            return out, AttentionTrace(moments, jsd)

        return _map_heads(attend, q, cache, start)

    def _cross_attend(
        self, q: Float[Array, "B T N H"], cache: LayerCache, image_mask: ImageMask, outputs: AttentionOutputs
    ) -> tuple[Float[Array, "B T N H"], AttentionTrace]:
        visible = jnp.where(
            image_mask.visible.any(-1, keepdims=True), image_mask.visible, image_mask.row_tiles[:, None]
        )
        scale = self.config.scale

        def attend(
            q: Array, k: Array, v: Array, visible: Array, *, axis_name: Axes | None
        ) -> tuple[Array, AttentionTrace]:
            out, moments = cross_attention(q, k, v, visible, moments=outputs.moments, scale=scale)
            jsd = cross_dispersion(q, k, visible, scale=scale, axis_name=axis_name) if outputs.head_jsd else None
            return out, AttentionTrace(moments, jsd)

        out, trace = _map_heads(attend, q, cache, visible)
        attends = visible.any(-1)

        def nan_without_keys(y: Array) -> Array:
            return jnp.where(attends.reshape(*attends.shape, *(1,) * (y.ndim - 2)), y, jnp.nan)

        return out, jax.tree.map(nan_without_keys, trace)


def _contain_nonfinite(k: Array, v: Array) -> tuple[Array, Array]:
    """Make a position with non-finite values affect only queries that attend to it: masked, 0 · NaN would be NaN."""
    finite = jnp.isfinite(v).all(-1, keepdims=True)
    return jnp.where(finite, k, jnp.nan), jnp.where(finite, v, 0)


def _write(cache: LayerCache, k: Array, v: Array, start: Array) -> LayerCache:
    """Call `cache.write`; on a mesh each device writes its rows and heads."""
    rows, heads = dividing_axes(ROW_AXES, len(k)), dividing_kv_head_axes(cache.k.shape[1])
    of_cache, of_new = P(rows, heads), P(rows, None, heads)
    return map_shards(LayerCache.write, (of_cache, of_new, of_new, P(rows)), of_cache)(cache, k, v, start)


def _map_heads(
    attend: Callable[..., tuple[Array, AttentionTrace]], q: Array, cache: LayerCache, by_row: Array
) -> tuple[Array, AttentionTrace]:
    """Call `attend(q, k, v, by_row)`; on a mesh each device computes its rows and its query heads with their keys."""
    rows, (heads, kv_heads) = dividing_axes(ROW_AXES, len(q)), dividing_head_axes(q.shape[2], cache.k.shape[1])
    of_heads, of_cache = P(rows, None, heads), P(rows, kv_heads)
    of_trace: Any = AttentionTrace(cast(Any, of_heads), cast(Any, P(rows)))
    in_specs = of_heads, of_cache, of_cache, P(rows)
    attend_shard = map_shards(functools.partial(attend, axis_name=heads), in_specs, (of_heads, of_trace))
    return attend_shard(q, cache.k, cache.v, by_row)


def _head_scores(chosen: np.ndarray, q: Float[Array, "B T N H"], k: Float[Array, "B K H S"]) -> Float[Array, "B T A S"]:
    """Return the scores of some query heads; on a mesh the devices that hold them compute them."""
    rows, (heads, kv_heads) = dividing_axes(ROW_AXES, len(q)), dividing_head_axes(q.shape[2], k.shape[1])

    def shard_scores(q: Array, k: Array) -> Array:
        count = q.shape[2]
        local = chosen % count
        scores = einsum("btah,bahs->btas", q[:, :, local], k[:, local // (count // k.shape[1])], jnp.float32)
        if heads is None:
            return scores
        held = jax.lax.axis_index(heads) == chosen // count
        return jax.lax.psum(jnp.where(held[:, None], scores, 0), heads)

    return map_shards(shard_scores, (P(rows, None, heads), P(rows, kv_heads)), P(rows))(q, k)


class FeedForward(nnx.Module):
    """down(act(gate(x)) · up(x)), or down(act(up(x))) without a gate."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs) -> None:
        d, f, bias = config.embed_dim, config.feed_forward, config.feed_forward_bias
        self.activation = config.activation
        self.gate = random_weight(rngs, f, d) if config.gated else None
        self.up, self.down = random_weight(rngs, f, d), random_weight(rngs, d, f)
        self.gate_bias = _bias(bias and config.gated, f)
        self.up_bias, self.down_bias = _bias(bias, f), _bias(bias, d)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        act = ACTIVATIONS[self.activation]
        up = _add(linear(x, self.up[...]), self.up_bias)
        hidden = act(up) if self.gate is None else act(_add(linear(x, self.gate[...]), self.gate_bias)) * up
        return _add(linear(hidden, self.down[...]), self.down_bias)


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


class Block(nnx.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x)).

    Norms after attention and feed-forward precede the sums; a cross-attention layer scales both terms by tanh gates. A
    parallel block is x + attention(norm(x)) + feed_forward(norm(x)). The layer's input, if it has one, adds a last
    term. A layer's scalar multiplies the result.
    """

    def __init__(self, config: DecoderConfig, kind: LayerKind, rngs: nnx.Rngs) -> None:
        config = config.sized(kind)
        self.parallel = config.parallel
        before, after = config.norm_placement != "after", config.norm_placement != "before"
        self.attention_norm = stream_norm(config) if before else None
        self.attention = Attention(config, kind, rngs)
        self.post_attention_norm = stream_norm(config) if after else None
        self.feed_forward_norm = stream_norm(config) if before else None
        self.feed_forward = FeedForward(config, rngs)
        self.post_feed_forward_norm = stream_norm(config) if after else None
        gated = kind.cross_attention
        self.attention_gate, self.feed_forward_gate = (nnx.Param(jnp.zeros(1)) if gated else None for _ in range(2))
        self.layer_input = LayerInput(config, rngs) if config.layer_input else None
        self.scalar = nnx.Param(jnp.ones(1)) if config.layer_scalar else None

    def __call__(
        self,
        x: Float[Array, "B T D"],
        cache: LayerCache,
        positions: Positions,
        outputs: AttentionOutputs,
        ablation: Interventions,
        layer_input: Float[Array, "B T P"] | None = None,
    ) -> tuple[Float[Array, "B T D"], LayerCache, AttentionTrace]:
        before = x
        with jax.named_scope("attention"):
            out, cache, trace = self.attention(_normed(x, self.attention_norm), cache, positions, outputs, ablation)
        x = x + tanh_gated(_normed(out, self.post_attention_norm), self.attention_gate)
        with jax.named_scope("feed_forward"):
            read = _normed(before if self.parallel else x, self.feed_forward_norm)
            out = _normed(self.feed_forward(read), self.post_feed_forward_norm)
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
        return x if ablation.layers is None else jnp.where(ablation.layers, before, x), cache, trace

    def attention_weights(
        self, x: Float[Array, "B T D"], cache: LayerCache, positions: Positions, heads: Sequence[int]
    ) -> Float[Array, "B T A S"]:
        """Return `Attention.weights` of the residual stream before the layer."""
        return self.attention.weights(_normed(x, self.attention_norm), cache, positions, heads)


def random_weight(rngs: nnx.Rngs, *shape: int) -> nnx.Param:
    """Draw a weight: normal with standard deviation `INIT_STD`."""
    return nnx.Param(jax.random.normal(rngs.params(), shape) * INIT_STD)


def _bias(exists: bool, *shape: int) -> nnx.Param | None:
    return nnx.Param(jnp.zeros(shape)) if exists else None


def _project(x: Float[Array, "B T D"], weight: nnx.Param, bias: nnx.Param | None) -> Float[Array, "B T N H"]:
    """Compute heads in one matrix product: with a 3-D contraction XLA's CPU backend copies the weight at every step."""
    n, h, d = weight[...].shape
    out = linear(x, weight[...].reshape(n * h, d)).reshape(*x.shape[:2], n, h)
    return _add(out, bias)


def _normed(x: Array, norm: RMSNorm | LayerNorm | None) -> Array:
    return x if norm is None else norm(x)


def _add(x: Array, bias: nnx.Param | None) -> Array:
    return x if bias is None else x + bias[...]


def tanh_gated(x: Array, gate: nnx.Param | None) -> Array:
    """Return tanh(gate) · x, or x without a gate."""
    return x if gate is None else jnp.tanh(gate[...]) * x
