"""The parts of a decoder as Flax NNX modules. Weights are [out, in], as checkpoints store them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtrace.kernels import AttentionMoments, decode_attention, head_dispersion, prefill_attention
from jaxtrace.models.cache import LayerCache
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.rope import rotate

INIT_STD = 0.02


@dataclasses.dataclass(frozen=True)
class Position:
    """Where the tokens of a call stand.

    Attributes:
      start: position of each row's first token.
      cos, sin: rotations of all its tokens.
    """

    start: Int[Array, " B"]
    cos: Float[Array, "B T 1 H2"]
    sin: Float[Array, "B T 1 H2"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionTrace:
    """What one layer's attention says of itself; None for what was not asked."""

    moments: AttentionMoments | None
    head_jsd: Float[Array, "B T"] | None


class RMSNorm(nnx.Module):
    """x / √(mean x² + ε) · weight, computed in float32."""

    def __init__(self, config: DecoderConfig):
        self.weight = nnx.Param(jnp.ones(config.embed))
        self.eps = config.norm_eps

    def __call__(self, x: Float[Array, "*r D"]) -> Float[Array, "*r D"]:
        full = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(full), axis=-1, keepdims=True)
        return (full * jax.lax.rsqrt(mean_square + self.eps)).astype(x.dtype) * self.weight[...]


class Attention(nnx.Module):
    """Grouped-query attention over the cache, with rotary positions."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        d, n, k, h = config.embed, config.heads, config.kv_heads, config.head_dim
        self.config = config
        self.q, self.k, self.v = (_weight(rngs, heads, h, d) for heads in (n, k, k))
        self.o = _weight(rngs, d, n, h)
        bias = config.attention_bias
        self.q_bias, self.k_bias, self.v_bias = (_bias(bias, heads, h) for heads in (n, k, k))
        self.o_bias = _bias(bias, d)

    def __call__(
        self, x: Float[Array, "B T D"], cache: LayerCache, position: Position, *, moments: bool, head_jsd: bool
    ) -> tuple[Float[Array, "B T D"], LayerCache, AttentionTrace]:
        q, k, v = (
            _add(_project(x, weight[...]), bias)
            for weight, bias in ((self.q, self.q_bias), (self.k, self.k_bias), (self.v, self.v_bias))
        )
        q, k = (rotate(heads, position.cos, position.sin) for heads in (q, k))
        cache = cache.write(k, v, position.start)
        scale = self.config.scale
        if x.shape[1] == 1:
            lengths = position.start + 1
            out, statistics = decode_attention(q[:, 0], cache.keys, cache.v, lengths, scale=scale, moments=moments)
            out, statistics = jax.tree.map(lambda y: y[:, None], (out, statistics))
        else:
            out, statistics = prefill_attention(q, cache.keys, cache.v, position.start, scale=scale, moments=moments)
        jsd = head_dispersion(q, cache.keys, position.start, scale=scale) if head_jsd else None
        d, n, h = self.o[...].shape
        out = jnp.einsum("bte,de->btd", out.reshape(*x.shape[:2], n * h), self.o[...].reshape(d, n * h))
        out = _add(out, self.o_bias)
        return out, cache, AttentionTrace(statistics, jsd)


class FeedForward(nnx.Module):
    """down(silu(gate(x)) · up(x))."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        d, f, bias = config.embed, config.feed_forward, config.feed_forward_bias
        self.gate, self.up, self.down = _weight(rngs, f, d), _weight(rngs, f, d), _weight(rngs, d, f)
        self.gate_bias, self.up_bias, self.down_bias = _bias(bias, f), _bias(bias, f), _bias(bias, d)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        gate = _add(jnp.einsum("btd,fd->btf", x, self.gate[...]), self.gate_bias)
        up = _add(jnp.einsum("btd,fd->btf", x, self.up[...]), self.up_bias)
        return _add(jnp.einsum("btf,df->btd", jax.nn.silu(gate) * up, self.down[...]), self.down_bias)


class Block(nnx.Module):
    """One layer: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config, rngs)
        self.feed_forward_norm = RMSNorm(config)
        self.feed_forward = FeedForward(config, rngs)

    def __call__(
        self, x: Float[Array, "B T D"], cache: LayerCache, position: Position, *, moments: bool, head_jsd: bool
    ) -> tuple[Float[Array, "B T D"], LayerCache, AttentionTrace]:
        with jax.named_scope("attention"):
            out, cache, trace = self.attention(
                self.attention_norm(x), cache, position, moments=moments, head_jsd=head_jsd
            )
        x = x + out
        with jax.named_scope("feed_forward"):
            return x + self.feed_forward(self.feed_forward_norm(x)), cache, trace


def _weight(rngs: nnx.Rngs, *shape: int) -> nnx.Param:
    return nnx.Param(jax.random.normal(rngs.params(), shape) * INIT_STD)


def _bias(wanted: bool, *shape: int) -> nnx.Param | None:
    return nnx.Param(jnp.zeros(shape)) if wanted else None


def _project(x: Float[Array, "B T D"], weight: Float[Array, "N H D"]) -> Float[Array, "B T N H"]:
    """One matrix product; contracted in three dimensions, XLA's CPU backend would re-lay the weight at every step."""
    n, h, d = weight.shape
    return jnp.einsum("btd,ed->bte", x, weight.reshape(n * h, d)).reshape(*x.shape[:2], n, h)


def _add(x: Array, bias: nnx.Param | None) -> Array:
    return x if bias is None else x + bias[...]
