"""Attention of a layer, and its metrics."""

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
    Chunk,
    cross_attention,
    cross_dispersion,
    decode_attention,
    einsum,
    head_dispersion,
    linear,
    prefill_attention,
    soft_capped,
)
from jaxtrace.kernels.attention import Window, visible_keys
from jaxtrace.models.cache import LayerCache
from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.interventions import Interventions
from jaxtrace.models.norms import RMSNorm, normed, qk_norm
from jaxtrace.models.on_mesh import (
    ROW_AXES,
    Axes,
    dividing_axes,
    dividing_head_axes,
    dividing_kv_head_axes,
    map_shards,
)
from jaxtrace.models.parameters import add_bias, optional_bias, random_weight
from jaxtrace.models.rope import Rotation, rotate
from jaxtrace.models.rope_config import Rope


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
      count: number of tokens of each row before the padding, which does not advance recurrent states; None for all.
      prompt_length: number of positions of each row's prompt; None if every position belongs to it.
    """

    start: Int[Array, " B"]
    rotations: dict[tuple[Rope, int], Rotation]
    image_mask: ImageMask | None
    count: Int[Array, " B"] | None
    prompt_length: Int[Array, " B"] | None


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
        """Return the trace of a layer without attention, all NaN; `shape` is (B, T). No learned sink is beside it."""
        nothing = jnp.full((*shape, heads), jnp.nan)
        needed = [field for field in dataclasses.fields(AttentionMoments) if field.default is dataclasses.MISSING]
        moments = AttentionMoments(*(nothing for _ in needed))
        return cls(moments if outputs.moments else None, nothing[..., 0] if outputs.head_jsd else None)


class Attention(nnx.Module):
    """Grouped-query attention over the cache of the layer, or of the layer `kind.kv_source`."""

    def __init__(self, config: DecoderConfig, kind: LayerKind, rngs: nnx.Rngs) -> None:
        d, n, k, h = config.embed_dim, config.num_heads, config.kv_heads, config.head_dim
        self.config, self.kind = config, kind
        has_k = kind.kv_source is None
        has_v = has_k and not kind.keys_as_values
        self.q = random_weight(rngs, n, h, d)
        self.k = random_weight(rngs, k, h, d) if has_k else None
        self.v = random_weight(rngs, k, h, d) if has_v else None
        self.o = random_weight(rngs, d, n, h)
        self.output_gate = random_weight(rngs, n, h, d) if config.output_gate else None
        self.output_gate_bias = optional_bias(config.output_gate and config.qkv_bias, n, h)
        self.q_bias = optional_bias(config.qkv_bias, n, h)
        self.k_bias = optional_bias(config.qkv_bias and has_k, k, h)
        self.v_bias = optional_bias(config.qkv_bias and has_v, k, h)
        self.o_bias = optional_bias(config.output_bias, d)
        self.q_norm = qk_norm(config, kind, n)
        self.k_norm = qk_norm(config, kind, k) if has_k else None
        self.v_norm = RMSNorm(config, h, weighted=False) if config.value_norm and has_k else None
        self.sinks = optional_bias(config.learned_sink, n)

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
                k, v = _contain_nonfinite(self._rotated(k, positions), v)
                cache = _write(cache, k, v, positions.start, self.kind)
            out, trace = self._attend(q, cache, positions, outputs)
        if self.output_gate is not None:
            out = out * jax.nn.sigmoid(_project(x, self.output_gate, self.output_gate_bias))
        if ablation.heads is not None:
            out = jnp.where(ablation.heads[:, None], 0, out)
        d, n, h = self.o[...].shape
        out = linear(out.reshape(*x.shape[:2], n * h), self.o[...].reshape(d, n * h))
        return add_bias(out, self.o_bias), cache, trace

    def keys_and_values(self, x: Float[Array, "B S D"]) -> tuple[Float[Array, "B S K H"], Float[Array, "B S K H"]]:
        """Return keys, without rotation, and values of a text's residual stream or of image vectors."""
        assert self.k is not None
        k = v = _project(x, self.k, self.k_bias)
        if self.v is not None:
            v = _project(x, self.v, self.v_bias)
        return normed(k, self.k_norm), normed(v, self.v_norm)

    def weights(
        self, x: Float[Array, "B T D"], cache: LayerCache, positions: Positions, heads: Sequence[int]
    ) -> Float[Array, "B T A S"]:
        """Return the attention weights of some query heads over a cache of all positions, the call's own included."""
        assert cache.offset is None
        scores = _head_scores(np.array(heads), self._queries(x, positions), cache.k) * self.config.scale
        position = positions.start[:, None] + jnp.arange(x.shape[1])
        visible = visible_keys(position, scores.shape[-1], self._window(scores.shape[-1]))
        return jax.nn.softmax(soft_capped(scores, self.config.score_soft_cap), axis=-1, where=visible[:, :, None])

    def _queries(self, x: Float[Array, "B T D"], positions: Positions) -> Float[Array, "B T N H"]:
        q = self._rotated(normed(_project(x, self.q, self.q_bias), self.q_norm), positions)
        if (scaling := self.kind.position_scaling) is None:
            return q
        spans = (positions.start[:, None] + jnp.arange(x.shape[1]) + scaling.offset) // scaling.context
        return q * (1 + scaling.strength * jnp.log1p(spans))[..., None, None].astype(q.dtype)

    def _rotated(self, x: Float[Array, "B T N H"], positions: Positions) -> Float[Array, "B T N H"]:
        rope = self.kind.rope
        return x if rope is None else rotate(x, positions.rotations[rope, self.config.head_dim])

    def _window(self, slots: int) -> Window:
        """Return the keys that a query sees in a cache; only a cache that is longer than a chunk has several."""
        chunk = self.kind.chunk
        return self.kind.window if chunk is None or slots <= chunk else Chunk(chunk)

    def _attend(
        self, q: Float[Array, "B T N H"], cache: LayerCache, positions: Positions, outputs: AttentionOutputs
    ) -> tuple[Float[Array, "B T N H"], AttentionTrace]:
        options = {
            "scale": self.config.scale,
            "window": self._window(cache.k.shape[-1]),
            "soft_cap": self.config.score_soft_cap,
        }

        def attend(
            q: Array, k: Array, v: Array, by_row: Any, sinks: Array | None, *, axis_name: Axes | None
        ) -> tuple[Array, AttentionTrace]:
            start, prompt_length = by_row
            with_moments = {"moments": outputs.moments, "learned_sink": sinks, "prompt_length": prompt_length}
            if q.shape[1] == 1:
                lengths = jnp.minimum(start + 1, k.shape[3])  # a finished row may be past its last slot
                one = decode_attention(q[:, 0], k, v, lengths, **with_moments, **options)
                out, moments = jax.tree.map(lambda y: y[:, None], one)
            else:
                out, moments = prefill_attention(q, k, v, start, **with_moments, **options)
            jsd = head_dispersion(q, k, start, axis_name=axis_name, **options) if outputs.head_jsd else None
            return out, AttentionTrace(moments, jsd)

        by_row = jax.tree.map(cache.slot_of, (positions.start, positions.prompt_length))
        return _map_heads(attend, q, cache, by_row, None if self.sinks is None else self.sinks[...])

    def _cross_attend(
        self, q: Float[Array, "B T N H"], cache: LayerCache, image_mask: ImageMask, outputs: AttentionOutputs
    ) -> tuple[Float[Array, "B T N H"], AttentionTrace]:
        visible = jnp.where(
            image_mask.visible.any(-1, keepdims=True), image_mask.visible, image_mask.row_tiles[:, None]
        )
        scale = self.config.scale

        def attend(
            q: Array, k: Array, v: Array, visible: Array, sinks: None, *, axis_name: Axes | None
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


def _write(cache: LayerCache, k: Array, v: Array, start: Array, kind: LayerKind) -> LayerCache:
    """Call `cache.write`; on a mesh each device writes its rows and heads."""
    rows, heads = dividing_axes(ROW_AXES, len(k)), dividing_kv_head_axes(cache.k.shape[1])
    of_slots: Any = P(rows, heads)
    of_offset: Any = None if cache.offset is None else P(rows)
    of_cache: Any = LayerCache(of_slots, of_slots, of_offset)
    of_new = P(rows, None, heads)
    write = functools.partial(LayerCache.write, kind=kind)
    return map_shards(write, (of_cache, of_new, of_new, P(rows)), of_cache)(cache, k, v, start)


def _map_heads(
    attend: Callable[..., tuple[Array, AttentionTrace]],
    q: Array,
    cache: LayerCache,
    by_row: Any,
    by_head: Array | None = None,
) -> tuple[Array, AttentionTrace]:
    """Call `attend(q, k, v, by_row, by_head)`; on a mesh each device computes its rows and heads with their keys.

    `by_row` is a tree of arrays with the rows first.
    """
    rows, (heads, kv_heads) = dividing_axes(ROW_AXES, len(q)), dividing_head_axes(q.shape[2], cache.k.shape[1])
    of_heads, of_cache = P(rows, None, heads), P(rows, kv_heads)
    of_trace: Any = AttentionTrace(cast(Any, of_heads), cast(Any, P(rows)))
    in_specs = of_heads, of_cache, of_cache, P(rows), P(heads)
    attend_shard = map_shards(functools.partial(attend, axis_name=heads), in_specs, (of_heads, of_trace))
    return attend_shard(q, cache.k, cache.v, by_row, by_head)


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


def _project(x: Float[Array, "B T D"], weight: nnx.Param, bias: nnx.Param | None) -> Float[Array, "B T N H"]:
    """Compute heads in one matrix product: with a 3-D contraction XLA's CPU backend copies the weight at every step."""
    n, h, d = weight[...].shape
    out = linear(x, weight[...].reshape(n * h, d)).reshape(*x.shape[:2], n, h)
    return add_bias(out, bias)
