"""The parts of a decoder as Flax NNX modules. Weights are [out, in], as checkpoints store them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
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
    head_dispersion,
    linear,
    prefill_attention,
    soft_capped,
)
from jaxtrace.kernels.attention import visible_keys
from jaxtrace.models.cache import LayerCache
from jaxtrace.models.config import DecoderConfig, LayerKind, Rope, VisionConfig
from jaxtrace.models.interventions import Interventions
from jaxtrace.models.on_mesh import KV_HEADS, ROWS, mapped, split, split_heads
from jaxtrace.models.rope import Rotation, rotate

INIT_STD = 0.02
ACTIVATIONS = {
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sight:
    """Which tiles of its images each token of a call sees.

    Attributes:
      own: the row's own tiles, padding tiles of its images included.
      visible: the tiles each token sees. Where a token of a row with images sees none (it stands before the first), its
        cross-attention goes over all of `own` and its feed-forward block adds nothing: so Llama 3.2 Vision was trained.
    """

    own: Bool[Array, "B M"]
    visible: Bool[Array, "B T M"]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the tokens of a call stand.

    Attributes:
      start: position of each row's first token.
      rotations: of all its tokens, for every kind of rotary positions the decoder has.
      sight: of its images, or None.
    """

    start: Int[Array, " B"]
    rotations: dict[Rope, Rotation]
    sight: Sight | None


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a block is to return of its attention.

    Attributes:
      moments: the moments of the weights.
      head_jsd: the Jensen–Shannon divergence over heads.
    """

    moments: bool
    head_jsd: bool


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionTrace:
    """What one layer's attention says of itself; None for what was not asked, NaN where it sees nothing."""

    moments: AttentionMoments | None
    head_jsd: Float[Array, "B T"] | None

    @classmethod
    def absent(cls, shape: tuple[int, ...], heads: int, asked: Asked) -> AttentionTrace:
        """That of a layer that is skipped; `shape` is (B, T)."""
        nothing = jnp.full((*shape, heads), jnp.nan)
        moments = AttentionMoments(*(nothing for _ in dataclasses.fields(AttentionMoments)))
        return cls(moments if asked.moments else None, nothing[..., 0] if asked.head_jsd else None)


class RMSNorm(nnx.Module):
    """x / √(mean x² + ε) · (offset + weight), computed in float32."""

    def __init__(self, config: DecoderConfig, width: int):
        self.weight = nnx.Param(jnp.full(width, 1.0 - config.norm_offset))
        self.eps = config.norm_eps
        self.offset = config.norm_offset

    def __call__(self, x: Float[Array, "*r D"]) -> Float[Array, "*r D"]:
        full = x.astype(jnp.float32)
        full = full * jax.lax.rsqrt(jnp.mean(jnp.square(full), axis=-1, keepdims=True) + self.eps)
        if self.offset:
            return (full * (self.offset + self.weight[...].astype(jnp.float32))).astype(x.dtype)
        return full.astype(x.dtype) * self.weight[...]


class LayerNorm(nnx.Module):
    """(x − mean) / √(variance + ε) · weight + bias, computed in float32."""

    def __init__(self, config: DecoderConfig | VisionConfig, width: int):
        self.weight = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.eps = config.norm_eps

    def __call__(self, x: Float[Array, "*r D"]) -> Float[Array, "*r D"]:
        full = x.astype(jnp.float32)
        full = full - jnp.mean(full, axis=-1, keepdims=True)
        full = full * jax.lax.rsqrt(jnp.mean(jnp.square(full), axis=-1, keepdims=True) + self.eps)
        return (full * self.weight[...] + self.bias[...]).astype(x.dtype)


def stream_norm(config: DecoderConfig) -> RMSNorm | LayerNorm:
    """A norm over the residual stream."""
    return (LayerNorm if config.norm == "layer" else RMSNorm)(config, config.embed)


class Attention(nnx.Module):
    """Grouped-query attention over the cache."""

    def __init__(self, config: DecoderConfig, kind: LayerKind, rngs: nnx.Rngs):
        d, n, k, h = config.embed, config.heads, config.kv_heads, config.head_dim
        self.config, self.kind = config, kind
        self.q, self.k, self.v = (weight_of(rngs, heads, h, d) for heads in (n, k, k))
        self.o = weight_of(rngs, d, n, h)
        self.q_bias, self.k_bias, self.v_bias = (_bias(config.qkv_bias, heads, h) for heads in (n, k, k))
        self.o_bias = _bias(config.output_bias, d)
        normed = config.qk_norm or kind.cross_attention
        self.q_norm, self.k_norm = (RMSNorm(config, h) if normed else None for _ in range(2))

    def __call__(
        self, x: Float[Array, "B T D"], cache: LayerCache, place: Place, asked: Asked, left_out: Interventions
    ) -> tuple[Float[Array, "B T D"], LayerCache, AttentionTrace]:
        q = self._queries(x, place)
        if self.kind.cross_attention:
            out, trace = self._look(q, cache, place.sight, asked)
        else:
            k, v = self.keys_and_values(x)
            if self.kind.rope is not None:
                k = rotate(k, place.rotations[self.kind.rope])
            cache = _written(cache, *_masked_by_keys(k, v), place.start)
            out, trace = self._attend(q, cache, place.start, asked)
        if left_out.heads is not None:
            out = jnp.where(left_out.heads[:, None], 0, out)
        d, n, h = self.o[...].shape
        out = linear(out.reshape(*x.shape[:2], n * h), self.o[...].reshape(d, n * h))
        return _add(out, self.o_bias), cache, trace

    def keys_and_values(self, x: Float[Array, "B S D"]) -> tuple[Float[Array, "B S K H"], Float[Array, "B S K H"]]:
        """Keys, not rotated, and values of a text's hidden states or of an image's vectors."""
        return _normed(_project(x, self.k, self.k_bias), self.k_norm), _project(x, self.v, self.v_bias)

    def weights(
        self, x: Float[Array, "B T D"], cache: LayerCache, place: Place, heads: Sequence[int]
    ) -> Float[Array, "B T A S"]:
        """Attention weights of some query heads over the positions of a cache, the call's own included."""
        scores = _scores_of(np.array(heads), self._queries(x, place), cache.k) * self.config.scale
        position = place.start[:, None] + jnp.arange(x.shape[1])
        visible, _ = visible_keys(position, scores.shape[-1], self.kind.window)
        return jax.nn.softmax(soft_capped(scores, self.config.score_soft_cap), axis=-1, where=visible[:, :, None])

    def _queries(self, x: Float[Array, "B T D"], place: Place) -> Float[Array, "B T N H"]:
        q = _normed(_project(x, self.q, self.q_bias), self.q_norm)
        return q if self.kind.rope is None else rotate(q, place.rotations[self.kind.rope])

    def _attend(self, q, cache, start, asked):
        options = {
            "scale": self.config.scale,
            "window": self.kind.window,
            "soft_cap": self.config.score_soft_cap,
        }

        def attend(q, k, v, start, *, axis_name):
            if q.shape[1] == 1:
                lengths = jnp.minimum(start + 1, k.shape[3])  # a row that is done may stand past its last slot
                one = decode_attention(q[:, 0], k, v, lengths, moments=asked.moments, **options)
                out, moments = jax.tree.map(lambda y: y[:, None], one)
            else:
                out, moments = prefill_attention(q, k, v, start, moments=asked.moments, **options)
            jsd = head_dispersion(q, k, start, axis_name=axis_name, **options) if asked.head_jsd else None
            return out, AttentionTrace(moments, jsd)

        return _by_heads(attend, q, cache, start)

    def _look(self, q, cache, sight, asked):
        visible = jnp.where(sight.visible.any(-1, keepdims=True), sight.visible, sight.own[:, None])
        scale = self.config.scale

        def attend(q, k, v, visible, *, axis_name):
            out, moments = cross_attention(q, k, v, visible, moments=asked.moments, scale=scale)
            jsd = cross_dispersion(q, k, visible, scale=scale, axis_name=axis_name) if asked.head_jsd else None
            return out, AttentionTrace(moments, jsd)

        out, trace = _by_heads(attend, q, cache, visible)
        sees = visible.any(-1)

        def seen(y: Array) -> Array:
            return jnp.where(sees.reshape(*sees.shape, *(1,) * (y.ndim - 2)), y, jnp.nan)

        return out, jax.tree.map(seen, trace)


def _masked_by_keys(k, v):
    """Keys and values such that one that is not finite has no part in what does not see it: 0 · NaN is NaN."""
    finite = jnp.isfinite(v).all(-1, keepdims=True)
    return jnp.where(finite, k, jnp.nan), jnp.where(finite, v, 0)


def _written(cache, k, v, start):
    """`cache.write`, on a mesh by each device for its rows and heads."""
    rows, heads = split(ROWS, len(k)), split(KV_HEADS, cache.k.shape[1])
    of_cache, of_new = P(rows, heads), P(rows, None, heads)
    return mapped(LayerCache.write, (of_cache, of_new, of_new, P(rows)), of_cache)(cache, k, v, start)


def _by_heads(attend, q, cache, by_row):
    """`attend(q, k, v, by_row)`, on a mesh by each device for its rows and its query heads, which see its key heads."""
    rows, (heads, kv_heads) = split(ROWS, len(q)), split_heads(q.shape[2], cache.k.shape[1])
    of_heads, of_cache = P(rows, None, heads), P(rows, kv_heads)
    of_trace: Any = AttentionTrace(cast(Any, of_heads), cast(Any, P(rows)))
    in_specs = of_heads, of_cache, of_cache, P(rows)
    own = mapped(functools.partial(attend, axis_name=heads), in_specs, (of_heads, of_trace))
    return own(q, cache.k, cache.v, by_row)


def _scores_of(chosen, q, k):
    """Scores [B, T, A, S] of some query heads, on a mesh by the devices that have them."""
    rows, (heads, kv_heads) = split(ROWS, len(q)), split_heads(q.shape[2], k.shape[1])

    def scores(q, k):
        own = q.shape[2]
        here = chosen % own
        found = jnp.einsum(
            "btah,bahs->btas", q[:, :, here], k[:, here // (own // k.shape[1])], preferred_element_type=jnp.float32
        )
        if heads is None:
            return found
        mine = jax.lax.axis_index(heads) == chosen // own
        return jax.lax.psum(jnp.where(mine[:, None], found, 0), heads)

    return mapped(scores, (P(rows, None, heads), P(rows, kv_heads)), P(rows))(q, k)


class FeedForward(nnx.Module):
    """down(act(gate(x)) · up(x)), or down(act(up(x))) without a gate."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        d, f, bias = config.embed, config.feed_forward, config.feed_forward_bias
        self.activation = config.activation
        self.gate = weight_of(rngs, f, d) if config.gated else None
        self.up, self.down = weight_of(rngs, f, d), weight_of(rngs, d, f)
        self.gate_bias = _bias(bias and config.gated, f)
        self.up_bias, self.down_bias = _bias(bias, f), _bias(bias, d)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        act = ACTIVATIONS[self.activation]
        up = _add(linear(x, self.up[...]), self.up_bias)
        hidden = act(up) if self.gate is None else act(_add(linear(x, self.gate[...]), self.gate_bias)) * up
        return _add(linear(hidden, self.down[...]), self.down_bias)


class Block(nnx.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x)).

    Post-norms stand before each sum; a layer that looks at an image adds both through tanh gates.
    """

    def __init__(self, config: DecoderConfig, kind: LayerKind, rngs: nnx.Rngs):
        self.attention_norm = stream_norm(config)
        self.attention = Attention(config, kind, rngs)
        self.post_attention_norm = stream_norm(config) if config.post_norms else None
        self.feed_forward_norm = stream_norm(config)
        self.feed_forward = FeedForward(config, rngs)
        self.post_feed_forward_norm = stream_norm(config) if config.post_norms else None
        gated = kind.cross_attention
        self.attention_gate, self.feed_forward_gate = (nnx.Param(jnp.zeros(1)) if gated else None for _ in range(2))

    def __call__(
        self, x: Float[Array, "B T D"], cache: LayerCache, place: Place, asked: Asked, left_out: Interventions
    ) -> tuple[Float[Array, "B T D"], LayerCache, AttentionTrace]:
        before = x
        with jax.named_scope("attention"):
            out, cache, trace = self.attention(self.attention_norm(x), cache, place, asked, left_out)
        x = x + through(_normed(out, self.post_attention_norm), self.attention_gate)
        with jax.named_scope("feed_forward"):
            out = _normed(self.feed_forward(self.feed_forward_norm(x)), self.post_feed_forward_norm)
        if self.feed_forward_gate is not None:
            assert place.sight is not None
            out = jnp.where(place.sight.visible.any(-1)[..., None], out, 0)
        x = x + through(out, self.feed_forward_gate)
        return x if left_out.skip is None else jnp.where(left_out.skip, before, x), cache, trace

    def attention_weights(
        self, x: Float[Array, "B T D"], cache: LayerCache, place: Place, heads: Sequence[int]
    ) -> Float[Array, "B T A S"]:
        """`Attention.weights` of the residual stream before the layer."""
        return self.attention.weights(self.attention_norm(x), cache, place, heads)


def weight_of(rngs: nnx.Rngs, *shape: int) -> nnx.Param:
    """A random weight."""
    return nnx.Param(jax.random.normal(rngs.params(), shape) * INIT_STD)


def _bias(wanted: bool, *shape: int) -> nnx.Param | None:
    return nnx.Param(jnp.zeros(shape)) if wanted else None


def _project(x: Float[Array, "B T D"], weight: nnx.Param, bias: nnx.Param | None) -> Float[Array, "B T N H"]:
    """One matrix product; contracted in three dimensions, XLA's CPU backend would re-lay the weight at every step."""
    n, h, d = weight[...].shape
    out = linear(x, weight[...].reshape(n * h, d)).reshape(*x.shape[:2], n, h)
    return _add(out, bias)


def _normed(x: Array, norm: RMSNorm | LayerNorm | None) -> Array:
    return x if norm is None else norm(x)


def _add(x: Array, bias: nnx.Param | None) -> Array:
    return x if bias is None else x + bias[...]


def through(x: Array, gate: nnx.Param | None) -> Array:
    """x behind a tanh gate, if there is one."""
    return x if gate is None else jnp.tanh(gate[...]) * x
