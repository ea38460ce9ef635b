"""The pure forward pass over a decoder's parameters."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxtrace.kernels import linear, soft_capped
from jaxtrace.models.attention import AttentionOutputs, AttentionTrace, ImageMask, Positions
from jaxtrace.models.cache import KVCache, LayerCache, LayerState, RecurrentState, compact, empty_cache
from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.decoder import (
    Decoder,
    Params,
    block_definition,
    is_stacked,
    merge,
    outer_definition,
    unembedding,
)
from jaxtrace.models.images import Images
from jaxtrace.models.interventions import Interventions
from jaxtrace.models.layers import LayerOutputs, LayerTrace
from jaxtrace.models.on_mesh import shard_rows
from jaxtrace.models.rope import Rotation, rotation
from jaxtrace.models.rope_config import Rope
from jaxtrace.models.router import RouterOutputs, RouterTrace
from jaxtrace.models.stacked import StackedLayers, join_layers, keep_experts_whole, layer_at, split_layers

# Cache of a layer, if it has one, its requested metrics, and the residual stream after it, if requested.
LayerResult = tuple[LayerState, LayerTrace, Array | None]


@dataclasses.dataclass(frozen=True)
class ForwardResult:
    """Outputs of a forward pass.

    Attributes:
      hidden: residual stream after the last block.
      layers: layers of `stream`, ascending.
      stream: residual stream after each layer of `layers`; None if there are none.
      attention: requested attention outputs, one row per requested layer [L, …]; NaN where attention is over nothing.
      router: requested router outputs, one row per requested layer [L, …]; NaN, or −1, for a dense layer.
      cache: cache that includes the new positions.
      length: number of tokens of each row that rotary positions were computed for.
    """

    hidden: Float[Array, "B T D"]
    layers: tuple[int, ...]
    stream: Float[Array, "S B T D"] | None
    attention: AttentionTrace
    router: RouterTrace
    cache: KVCache
    length: Int[Array, " B"]

    def residual(self, layers: Sequence[int]) -> Float[Array, "R B T D"]:
        """Return the residual stream after some layers of `layers`."""
        assert self.stream is not None
        indices = [self.layers.index(layer) for layer in layers]
        first, stride = indices[0], indices[1] - indices[0] if len(indices) > 1 else 1
        if stride > 0 and indices == [*range(first, first + stride * len(indices), stride)]:
            return self.stream[first : indices[-1] + 1 : stride]
        return self.stream[np.array(indices)]


def forward(
    config: DecoderConfig,
    params: Params,
    tokens: Int[Array, "B T"],
    cache: KVCache,
    start: Int[Array, " B"],
    *,
    length: Int[Array, " B"] | None = None,
    count: Int[Array, " B"] | None = None,
    image_mask: ImageMask | None = None,
    moments: bool = False,
    head_jsd: bool = False,
    router: bool = False,
    experts: bool = False,
    layers: Sequence[int] | None = None,
    stream: Sequence[int] = (),
    interventions: Interventions | None = None,
    prompt_length: Int[Array, " B"] | None = None,
) -> ForwardResult:
    """Run T tokens of each row through the decoder, from position `start`.

    Args:
      config: decoder's config.
      params: decoder's parameters.
      tokens: token ids; T = 1 is a decode step, T > 1 a prefill. Tokens past a row's `count` are harmless: later
        positions overwrite their keys and values, and they do not advance the state of recurrent layers.
      cache: keys and values of the positions before `start`, and the state of recurrent layers there, in the layout of
        the parameters. A cross-attention layer without an entry is skipped: the residual stream passes through it
        unchanged.
      start: position of each row's first token.
      length: number of tokens of each row after the call, without padding, for a rope that depends on it. A prompt that
        is fed in pieces has its whole length in each call, and equals a prompt that is fed at once. None for start + T.
      count: number of tokens of each row before the padding; 0 for a row that does not advance. None for T. Only
        recurrent layers need it.
      image_mask: image tiles that each token sees; required if the cache holds images.
      moments: True to return the moments of the attention weights.
      head_jsd: True to return the Jensen–Shannon divergence over heads.
      router: True to return entropy and mass of the routers.
      experts: True to return the numbers of the chosen experts.
      layers: layers whose attention and router outputs are returned, from 1, ascending; None for all.
      stream: layers after which the residual stream is returned, ascending; 0 is the embedding.
      interventions: ablated blocks and heads; None for none, at no cost.
      prompt_length: number of positions of each row's prompt, for `attention_prompt_mass`; None if every position
        belongs to the prompt.

    Raises:
      ConfigError: a mask of the interventions has the wrong shape or dtype.
    """
    ablation = interventions or Interventions()
    ablation.check(config)
    position = start[:, None] + jnp.arange(tokens.shape[1])
    length = start + tokens.shape[1] if length is None else length
    rotations = _rotations(config, config.pattern, position, length)
    positions = Positions(start, rotations, image_mask, count, prompt_length)
    requested = LayerOutputs(AttentionOutputs(moments, head_jsd), RouterOutputs(router, experts))
    nothing = LayerOutputs(AttentionOutputs(False, False), RouterOutputs(False, False))
    measured = range(1, config.num_layers + 1) if layers is None else layers
    with jax.named_scope("embed"):
        for token, other in config.token_aliases:
            tokens = jnp.where(tokens == token, other, tokens)
        x = embedded = _embed(config, params, tokens, position)
        inputs_of_layers = _outer(config, params).layer_inputs
        layer_inputs = None if inputs_of_layers is None else inputs_of_layers(x, tokens)

    # Equal layers share one trace: Python then runs a block once for each kind of layer. The program is the same.
    @functools.partial(jax.jit, static_argnames=("kind", "outputs"), inline=True)
    def run_block(
        x: Array,
        weights: Params,
        attended: LayerCache | RecurrentState,
        ablation: Interventions,
        layer_input: Array | None,
        *,
        kind: LayerKind,
        outputs: LayerOutputs,
    ) -> tuple[Array, LayerCache | RecurrentState, LayerTrace]:
        block = merge(block_definition(config, kind), weights)
        return block(x, attended, positions, outputs, ablation, layer_input)

    def layer(
        x: Array,
        kind: LayerKind,
        weights: Params,
        layer_cache: LayerState,
        ablation: Interventions,
        layer_input: Array | None,
        earlier: Sequence[LayerResult],
        outputs: LayerOutputs = requested,
    ) -> tuple[Array, LayerResult]:
        shared = None if kind.kv_source is None else earlier[kind.kv_source][0]
        attended = layer_cache if shared is None else shared
        if attended is None:
            trace = LayerTrace.absent(position.shape, config, outputs)
        else:
            arguments = x, weights, attended, ablation, layer_input
            x, written, trace = run_block(*arguments, kind=kind, outputs=outputs)
            layer_cache = written if shared is None else None
        return x, (layer_cache, trace, x if stream else None)

    def period(
        x: Array, of_layers: tuple[list[Params], list[LayerState], list[Interventions], list[Array | None]]
    ) -> tuple[Array, list]:
        results: list[LayerResult] = []
        for i, (kind, weights, layer_cache, mask, layer_input) in enumerate(
            zip(config.pattern, *of_layers, strict=True)
        ):
            with jax.named_scope(f"layer_{i + 1}_of_{len(config.pattern)}"):
                x, result = layer(x, kind, weights, layer_cache, mask, layer_input, results)
            results.append(result)
        return x, results

    repeated: list[Any] = []
    repeated_caches: list[LayerState] = []
    tail: dict[int, LayerResult] = {}
    split_period = len(config.pattern) if isinstance(cache, StackedLayers) else None
    masks, inputs = (split_layers(tree, config.num_layers, split_period) for tree in (ablation, layer_inputs))
    of_layers: list[Any] = [params["layers"], cache, masks, inputs]
    scanned = 0
    if isinstance(cache, StackedLayers):
        sliced, layers_of = keep_experts_whole(params["layers"].repeated)
        scanned = config.num_layers - len(cache.tail)

        def step(carry: tuple[Array, list[LayerState]], of_step: Any) -> tuple[tuple[Array, list[LayerState]], list]:
            x, caches = carry
            i, sliced, *others = of_step
            of_period = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), caches)
            x, results = period(x, (layers_of(sliced), of_period, *others))
            written = [result[0] for result in results]
            caches = jax.tree.map(lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, i, 0), caches, written)
            return (x, [compact(cache) for cache in caches]), [(None, *result[1:]) for result in results]

        # Caches are carried: as the scan's inputs and outputs each would be in memory twice.
        steps = jnp.arange(scanned // len(config.pattern)), sliced, *(each.repeated for each in of_layers[2:])
        (x, repeated_caches), repeated = jax.lax.scan(step, (x, cache.repeated), steps)
        of_layers = [each.tail for each in of_layers]
    for number, (weights, layer_cache, mask, layer_input) in enumerate(zip(*of_layers, strict=True), scanned + 1):
        with jax.named_scope(f"layer_{number}"):
            outputs = requested if number in measured else nothing
            kind, earlier = config.kind(number - 1), [*tail.values()]
            x, tail[number] = layer(x, kind, weights, layer_cache, mask, layer_input, earlier, outputs)

    def joined(i: int, layers: Sequence[int]) -> Any:
        kept = [number - 1 for number in layers if 1 <= number <= scanned]
        return join_layers(
            [result[i] for result in repeated], [tail[number][i] for number in layers if number in tail], kept
        )

    tail_cache = [result[0] for result in tail.values()]
    streams = [embedded[None]] if 0 in stream else []
    streams += [joined(2, stream)] if any(stream) else []
    trace = joined(1, measured)
    return ForwardResult(
        hidden=x,
        layers=tuple(stream),
        stream=jnp.concatenate(streams) if streams else None,
        attention=trace.attention,
        router=trace.router,
        cache=StackedLayers(repeated_caches, tail_cache) if isinstance(cache, StackedLayers) else tail_cache,
        length=length,
    )


def attention_weights(
    config: DecoderConfig,
    params: Params,
    result: ForwardResult,
    start: Int[Array, " B"],
    rows: Sequence[tuple[int, int]],
) -> Float[Array, "B T A S"]:
    """Recompute the attention weights of some heads over the cache from the outputs of a forward pass.

    Args:
      config: decoder's config.
      params: decoder's parameters.
      result: outputs of the forward pass, with the residual stream before each of the layers.
      start: position of each row's first token.
      rows: (layer from 1, query head) pairs.

    Returns:
      Weights over all S slots, in float32; NaN at slots past a token's own position.
    """
    position = start[:, None] + jnp.arange(result.hidden.shape[1])

    def layer_weights(layer: int, heads: list[int]) -> Float[Array, "B T A S"]:
        kind = config.kind(layer - 1)
        weights = layer_at(params["layers"], layer - 1)
        cache = layer_at(result.cache, layer - 1 if kind.kv_source is None else kind.kv_source)
        block = merge(block_definition(config, kind), weights)
        positions = Positions(start, _rotations(config, [kind], position, result.length), None, None, None)
        return block.attention_weights(result.residual([layer - 1])[0], cache, positions, heads)

    heads_by_layer = {layer: [head for other, head in rows if other == layer] for layer, _ in rows}
    by_layer = {layer: layer_weights(layer, heads) for layer, heads in heads_by_layer.items()}
    weights = jnp.stack([by_layer[layer][:, :, heads_by_layer[layer].index(head)] for layer, head in rows], axis=2)
    future = jnp.arange(weights.shape[-1]) > position[..., None, None]
    return jnp.where(future, jnp.nan, weights)


def encode_images(config: DecoderConfig, params: Params, cache: KVCache, images: Images) -> KVCache:
    """Fill the caches of cross-attention layers with the keys and values of every image vector.

    Args:
      config: decoder's config.
      params: decoder's parameters.
      cache: cache with `images.keys(config.vision)` image keys.
      images: images of every row.
    """
    with jax.named_scope("vision"):
        encoder = _outer(config, params).vision
        assert encoder is not None
        vectors = encoder(images.pixels, images.aspect_ratio, images.tile_mask)

    def filled(kind: LayerKind, weights: Params, old: LayerState) -> LayerState:
        if not kind.cross_attention:
            return old
        k, v = merge(block_definition(config, kind), weights).attention.keys_and_values(vectors)
        return LayerCache(k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3))

    layers = params["layers"]
    if not isinstance(cache, StackedLayers):
        return [filled(*each) for each in zip(config.kinds, layers, cache, strict=True)]
    repeated = [
        jax.lax.map(lambda weights, kind=kind: filled(kind, weights, None), weights) if kind.cross_attention else old
        for kind, weights, old in zip(config.pattern, layers.repeated, cache.repeated, strict=True)
    ]
    tail = zip(config.pattern, layers.tail, cache.tail, strict=False)
    return StackedLayers(repeated, [filled(*each) for each in tail])


def final_norm(config: DecoderConfig, params: Params, x: Float[Array, "*r D"]) -> Float[Array, "*r D"]:
    """Apply the norm before the unembedding."""
    return _outer(config, params).final_norm(x)


def unembed(config: DecoderConfig, params: Params, x: Float[Array, "*r D"]) -> Float[Array, "*r V"]:
    """Return the next-token logits of residual streams, float32, with the decoder's soft-cap."""
    logits = linear(final_norm(config, params, x), unembedding(params), jnp.float32)
    return soft_capped(logits, config.logit_soft_cap)


def forward_logits(config: DecoderConfig, params: Params, tokens: Int[Array, "B T"]) -> Float[Array, "B T V"]:
    """Return the logits of every position of whole sequences, float32; supports reverse-mode autodiff."""
    batch, length = tokens.shape
    dtype = params["embedding"].dtype
    cache = empty_cache(config, batch, length, stacked=is_stacked(params), dtype=dtype)
    result = forward(config, params, tokens, cache, jnp.zeros(batch, jnp.int32))
    return unembed(config, params, result.hidden)


def _outer(config: DecoderConfig, params: Params) -> Decoder:
    """Build the module of everything but the blocks."""
    return merge(outer_definition(config), {name: x for name, x in params.items() if name != "layers"})


def _rotations(
    config: DecoderConfig, kinds: Sequence[LayerKind], position: Int[Array, "B T"], length: Int[Array, " B"]
) -> dict[tuple[Rope, int], Rotation]:
    """Return the rotations of some kinds of layers, for `Positions`."""
    ropes = {(kind.rope, config.sized(kind).head_dim) for kind in kinds if kind.rope is not None}
    return {(rope, width): rotation(rope, width, position, length) for rope, width in ropes}


def _embed(
    config: DecoderConfig, params: Params, tokens: Int[Array, "B T"], position: Int[Array, "B T"]
) -> Float[Array, "B T D"]:
    x = jnp.take(params["embedding"], tokens, axis=0)
    if config.embedding_scale != 1:
        x = x * jnp.asarray(config.embedding_scale, x.dtype)
    if config.learned_positions:
        x = x + jnp.take(params["positions"], position, axis=0, mode="clip")
    return shard_rows(x)
