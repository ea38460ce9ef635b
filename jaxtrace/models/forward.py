"""The pure forward pass over a decoder's parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxtrace.kernels import linear, soft_capped
from jaxtrace.models.cache import KVCache, LayerCache, empty_cache
from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.decoder import Params, block_definition, is_stacked, merge, rest_definition, unembedding
from jaxtrace.models.images import Images
from jaxtrace.models.interventions import Interventions
from jaxtrace.models.layers import Asked, AttentionTrace, Place, Sight
from jaxtrace.models.on_mesh import by_rows
from jaxtrace.models.rope import rotation
from jaxtrace.models.stacked import Stacked, join, layer_of, spread


@dataclasses.dataclass(frozen=True)
class Forward:
    """What a forward pass leaves behind.

    Attributes:
      hidden: the residual stream after the last block.
      layers: of `stream`, ascending.
      stream: the residual stream after these; None where there are none.
      attention: per layer that was asked for [L, …], what was asked of its attention; NaN where it sees nothing.
      cache: with the new positions written.
    """

    hidden: Float[Array, "B T D"]
    layers: tuple[int, ...]
    stream: Float[Array, "S B T D"] | None
    attention: AttentionTrace
    cache: KVCache

    def residual(self, layers: Sequence[int]) -> Float[Array, "R B T D"]:
        """The residual stream after some of the layers that it has."""
        assert self.stream is not None
        places = [self.layers.index(layer) for layer in layers]
        first, stride = places[0], places[1] - places[0] if len(places) > 1 else 1
        if stride > 0 and places == [*range(first, first + stride * len(places), stride)]:
            return self.stream[first : places[-1] + 1 : stride]
        return self.stream[np.array(places)]


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
    layers: Sequence[int] | None = None,
    stream: Sequence[int] = (),
    interventions: Interventions | None = None,
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
      layers: whose moments and divergence are returned, from 1, ascending; None for all.
      stream: layers after which the residual stream is returned, ascending, 0 the embedding.
      interventions: what is left out; None for nothing, at no cost.

    Raises:
      ConfigError: a mask of the interventions is of another shape.
    """
    left_out = interventions or Interventions()
    left_out.check(config)
    position = start[:, None] + jnp.arange(tokens.shape[1])
    ropes = {kind.rope for kind in config.pattern if kind.rope is not None}
    place = Place(start, {rope: rotation(rope, config.head_dim, position) for rope in ropes}, sight)
    asked, nothing = Asked(moments, head_jsd), Asked(False, False)
    chosen = range(1, config.layers + 1) if layers is None else layers
    with jax.named_scope("embed"):
        x = first = _embed(config, params, tokens, position)

    def layer(
        x: Array,
        kind: LayerKind,
        weights: Params,
        layer_cache: LayerCache | None,
        left_out: Interventions,
        asked: Asked = asked,
    ):
        if layer_cache is None:
            trace = AttentionTrace.absent(position.shape, config.heads, asked)
        else:
            block = merge(block_definition(config, kind), weights)
            x, layer_cache, trace = block(x, layer_cache, place, asked, left_out)
        return x, (layer_cache, trace, x if stream else None)

    def period(
        x: Array, of_layers: tuple[list[Params], list[LayerCache | None], list[Interventions]]
    ) -> tuple[Array, list]:
        left = []
        for i, (kind, weights, layer_cache, mask) in enumerate(zip(config.pattern, *of_layers, strict=True)):
            with jax.named_scope(f"layer_{i + 1}_of_{len(config.pattern)}"):
                x, left_by_layer = layer(x, kind, weights, layer_cache, mask)
            left.append(left_by_layer)
        return x, left

    repeated: list[Any] = []
    rest: dict[int, Any] = {}
    blocks, caches, scanned = params["layers"], cache, 0
    masks: Any = spread(left_out, config.layers, len(config.pattern) if isinstance(caches, Stacked) else None)
    if isinstance(caches, Stacked):
        x, repeated = jax.lax.scan(period, x, (blocks.repeated, caches.repeated, masks.repeated))
        blocks, caches, masks, scanned = blocks.rest, caches.rest, masks.rest, config.layers - len(blocks.rest)
    for number, (weights, layer_cache, mask) in enumerate(zip(blocks, caches, masks, strict=True), scanned + 1):
        with jax.named_scope(f"layer_{number}"):
            wanted = asked if number in chosen else nothing
            x, rest[number] = layer(x, config.kind(number - 1), weights, layer_cache, mask, wanted)

    def joined(i: int, layers: Sequence[int]) -> Any:
        kept = [number - 1 for number in layers if 1 <= number <= scanned]
        return join([left[i] for left in repeated], [rest[number][i] for number in layers if number in rest], kept)

    new = [left[0] for left in rest.values()]
    after = [first[None]] if 0 in stream else []
    after += [joined(2, stream)] if any(stream) else []
    return Forward(
        hidden=x,
        layers=tuple(stream),
        stream=jnp.concatenate(after) if after else None,
        attention=joined(1, chosen),
        cache=Stacked([left[0] for left in repeated], new) if isinstance(cache, Stacked) else new,
    )


def attention_weights(
    config: DecoderConfig,
    params: Params,
    result: Forward,
    start: Int[Array, " B"],
    rows: Sequence[tuple[int, int]],
) -> Float[Array, "B T A S"]:
    """Attention weights of some heads over the cache, computed once more from what a forward pass left.

    Args:
      config, params: of the decoder.
      result: its forward pass, with the residual stream before each of the layers.
      start: position of each row's first token.
      rows: (layer from 1, query head) pairs.

    Returns:
      The weights over all S slots, in float32; NaN at slots past a token's own position.
    """
    position = start[:, None] + jnp.arange(result.hidden.shape[1])

    def of_layer(layer: int, heads: list[int]) -> Float[Array, "B T A S"]:
        kind = config.kind(layer - 1)
        weights, cache = (layer_of(tree, layer - 1) for tree in (params["layers"], result.cache))
        block = merge(block_definition(config, kind), weights)
        turned = {} if kind.rope is None else {kind.rope: rotation(kind.rope, config.head_dim, position)}
        return block.attention_weights(result.residual([layer - 1])[0], cache, Place(start, turned, None), heads)

    by_layer = {layer: [head for of, head in rows if of == layer] for layer, _ in rows}
    found = {layer: of_layer(layer, heads) for layer, heads in by_layer.items()}
    weights = jnp.stack([found[layer][:, :, by_layer[layer].index(head)] for layer, head in rows], axis=2)
    past = jnp.arange(weights.shape[-1]) > position[..., None, None]
    return jnp.where(past, jnp.nan, weights)


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
    return by_rows(x)
