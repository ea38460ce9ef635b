"""The pure forward pass over a decoder's parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtrace.kernels import linear, soft_capped
from jaxtrace.models.cache import KVCache, LayerCache, empty_cache
from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.decoder import Params, block_definition, is_stacked, merge, rest_definition, unembedding
from jaxtrace.models.images import Images
from jaxtrace.models.layers import Asked, AttentionTrace, Place, Sight
from jaxtrace.models.rope import rotation
from jaxtrace.models.stacked import Stacked, join


@dataclasses.dataclass(frozen=True)
class Forward:
    """What a forward pass leaves behind.

    Attributes:
      hidden: the residual stream after the last block.
      stream: the residual stream of layers 0 … L, or None.
      attention: per layer [L, …], what was asked of the attention; NaN where a layer sees nothing.
      cache: with the new positions written.
    """

    hidden: Float[Array, "B T D"]
    stream: Float[Array, "L1 B T D"] | None
    attention: AttentionTrace
    cache: KVCache


def forward(
    config: DecoderConfig,
    params: Params,
    tokens: Int[Array, "B T"],
    cache: KVCache,
    start: Int[Array, " B"],
    *,
    sight: Sight | None = None,
    moments: bool = False,
    head_jsd: bool = False,
    stream: bool = False,
) -> Forward:
    """Runs T tokens of each row through the decoder, from position `start` on.

    Args:
      config: of the decoder.
      params: its parameters.
      tokens: ids. T = 1 is a decode step; more is a prefill. Tokens past a row's end do no harm: later positions
        overwrite what they leave in the cache.
      cache: keys and values of the positions before `start`, laid out as the parameters. Layers that look at an image
        are skipped where they have none in it: the stream goes through unchanged.
      start: position of each row's first token.
      sight: which tiles each token sees; needed where the cache holds images.
      moments: return the moments of the attention weights.
      head_jsd: return the Jensen–Shannon divergence over heads.
      stream: return the residual stream of every layer.
    """
    position = start[:, None] + jnp.arange(tokens.shape[1])
    ropes = {kind.rope for kind in config.pattern if kind.rope is not None}
    place = Place(start, {rope: rotation(rope, config.head_dim, position) for rope in ropes}, sight)
    asked = Asked(moments, head_jsd)
    x = first = _embed(config, params, tokens, position)

    def layer(x: Array, kind: LayerKind, weights: Params, layer_cache: LayerCache | None) -> tuple[Array, Any]:
        if layer_cache is None:
            trace = AttentionTrace.absent(position.shape, config.heads, asked)
        else:
            block = merge(block_definition(config, kind), weights)
            x, layer_cache, trace = block(x, layer_cache, place, asked)
        return x, (layer_cache, trace, x if stream else None)

    def period(x: Array, weights_and_caches: tuple[list[Params], list[LayerCache | None]]) -> tuple[Array, list]:
        left = []
        for kind, weights, layer_cache in zip(config.pattern, *weights_and_caches, strict=True):
            x, left_by_layer = layer(x, kind, weights, layer_cache)
            left.append(left_by_layer)
        return x, left

    repeated: list[Any] = []
    rest: list[Any] = []
    layers, caches = params["layers"], cache
    if isinstance(caches, Stacked):
        x, repeated = jax.lax.scan(period, x, (layers.repeated, caches.repeated))
        layers, caches = layers.rest, caches.rest
    for i, (weights, layer_cache) in enumerate(zip(layers, caches, strict=True), config.layers - len(layers)):
        with jax.named_scope(f"layer_{i + 1}"):
            x, left = layer(x, config.kind(i), weights, layer_cache)
        rest.append(left)
    new = [left[0] for left in rest]
    traces, after = join([left[1:] for left in repeated], [left[1:] for left in rest])
    return Forward(
        hidden=x,
        stream=jnp.concatenate([first[None], after]) if stream else None,
        attention=traces,
        cache=Stacked([left[0] for left in repeated], new) if isinstance(cache, Stacked) else new,
    )


def look(
    config: DecoderConfig,
    params: Params,
    cache: KVCache,
    images: Images,
) -> KVCache:
    """Fills the caches of the layers that look at images: the keys and values of every image vector, computed once.

    Args:
      config, params: of the decoder.
      cache: one for `images.keys(config.vision)` image keys.
      images: of every row.
    """
    with jax.named_scope("vision"):
        encoder = merge(rest_definition(config), without_layers(params)).vision
        states = encoder(images.pixels, images.aspect_ratio, images.tiles)

    def filled(kind: LayerKind, weights: Params, old: LayerCache | None) -> LayerCache | None:
        if not kind.cross_attention:
            return old
        k, v = merge(block_definition(config, kind), weights).attention.keys_and_values(states)
        return LayerCache(k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3))

    layers = params["layers"]
    if not isinstance(cache, Stacked):
        return [filled(*each) for each in zip(config.kinds, layers, cache, strict=True)]
    repeated = [
        jax.lax.map(lambda weights, kind=kind: filled(kind, weights, None), weights) if kind.cross_attention else old
        for kind, weights, old in zip(config.pattern, layers.repeated, cache.repeated, strict=True)
    ]
    rest = zip(config.pattern, layers.rest, cache.rest, strict=False)
    return Stacked(repeated, [filled(*each) for each in rest])


def final_norm(config: DecoderConfig, params: Params, x: Float[Array, "*r D"]) -> Float[Array, "*r D"]:
    """The norm before the unembedding."""
    return merge(rest_definition(config), without_layers(params)).final_norm(x)


def unembed(config: DecoderConfig, params: Params, x: Float[Array, "*r D"]) -> Float[Array, "*r V"]:
    """Next-token logits of residual streams, float32, capped where the decoder caps them."""
    logits = linear(final_norm(config, params, x), unembedding(params), jnp.float32)
    return soft_capped(logits, config.logit_soft_cap)


def forward_logits(config: DecoderConfig, params: Params, tokens: Int[Array, "B T"]) -> Float[Array, "B T V"]:
    """Logits of every position of whole sequences, float32; differentiable, for training and for tests."""
    batch, length = tokens.shape
    dtype = params["embedding"].dtype
    cache = empty_cache(config, batch, length, stacked=is_stacked(params), dtype=dtype)
    result = forward(config, params, tokens, cache, jnp.zeros(batch, jnp.int32))
    return unembed(config, params, result.hidden)


def without_layers(params: Params) -> Params:
    """Everything but the blocks."""
    return {name: x for name, x in params.items() if name != "layers"}


def _embed(
    config: DecoderConfig, params: Params, tokens: Int[Array, "B T"], position: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    x = jnp.take(params["embedding"], tokens, axis=0)
    if config.embedding_scale != 1:
        x = x * jnp.asarray(config.embedding_scale, x.dtype)
    if config.learned_positions:
        x = x + jnp.take(params["positions"], position, axis=0, mode="clip")
    return x
