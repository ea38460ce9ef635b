"""The one decoder: an NNX module that defines it, and the pure forward pass over its parameters."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key

from jaxtrace.models.cache import KVCache, LayerCache, empty_cache
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.layers import INIT_STD, AttentionTrace, Block, Position, RMSNorm
from jaxtrace.models.rope import rotations

Params = dict[str, Any]  # the module's parameters by name; "layers" a list of blocks, or one block stacked


class Decoder(nnx.Module):
    """A decoder-only transformer, as its `DecoderConfig` says."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        shape = (config.vocab, config.embed)
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), shape) * INIT_STD)
        self.layers = nnx.List([Block(config, rngs) for _ in range(config.layers)])
        self.final_norm = RMSNorm(config)
        self.unembedding = None if config.tied else nnx.Param(jax.random.normal(rngs.params(), shape) * INIT_STD)


@dataclasses.dataclass(frozen=True)
class Forward:
    """What a forward pass leaves behind.

    Attributes:
      hidden: the residual stream after the last block.
      stream: the residual stream of layers 0 … L, or None.
      attention: per layer [L, …], what was asked of the attention.
      cache: with the new positions written.
    """

    hidden: Float[Array, "B T D"]
    stream: Float[Array, "L1 B T D"] | None
    attention: AttentionTrace
    cache: KVCache


@functools.lru_cache
def _definitions(config: DecoderConfig) -> tuple[nnx.GraphDef, nnx.State, nnx.GraphDef, nnx.State]:
    """Graph and abstract state of the decoder, and of one of its blocks."""
    decoder = nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))
    return (*nnx.split(decoder), *nnx.split(decoder.layers[0]))


def abstract_params(config: DecoderConfig) -> Params:
    """Shapes and dtypes of all parameters, layers as a list."""
    return _listed(nnx.to_pure_dict(_definitions(config)[1]), config)


@functools.partial(jax.jit, static_argnums=0)
def init_params(config: DecoderConfig, key: Key[Array, ""]) -> Params:
    """Random parameters, float32: normal with standard deviation 0.02, norms 1, biases 0."""
    state = nnx.state(Decoder(config, rngs=nnx.Rngs(params=key)), nnx.Param)
    return _listed(nnx.to_pure_dict(state), config)


def _listed(params: Params, config: DecoderConfig) -> Params:
    layers = params["layers"]
    return {**params, "layers": [layers[i] for i in range(config.layers)]}


def as_module(config: DecoderConfig, params: Params) -> Decoder:
    """The parameters as an NNX module, to inspect."""
    graph, state, *_ = _definitions(config)
    layers = params["layers"]
    if is_stacked(params):
        layers = [jax.tree.map(lambda x, i=i: x[i], layers) for i in range(config.layers)]
    return _merge(graph, state, {**params, "layers": dict(enumerate(layers))})


def _merge(graph: nnx.GraphDef, abstract: nnx.State, params: Params) -> Any:
    state = jax.tree.map(lambda x: x, abstract)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)


def stack_layers(params: Params) -> Params:
    """Parameters with the layers' weights stacked on a leading axis, for `lax.scan` over layers."""
    return {**params, "layers": jax.tree.map(lambda *layers: jnp.stack(layers), *params["layers"])}


def is_stacked(params: Params) -> bool:
    """Whether the layers are stacked (scanned) or a list (unrolled)."""
    return not isinstance(params["layers"], list)


def forward(
    config: DecoderConfig,
    params: Params,
    tokens: Int[Array, "B T"],
    cache: KVCache,
    start: Int[Array, " B"],
    *,
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
      cache: keys and values of the positions before `start`, laid out as the parameters: its layout decides between
        an unrolled and a scanned loop over layers.
      start: position of each row's first token.
      moments: return the moments of the attention weights.
      head_jsd: return the Jensen–Shannon divergence over heads.
      stream: return the residual stream of every layer.
    """
    *_, graph, abstract = _definitions(config)
    position = Position(start, *rotations(config, start[:, None] + jnp.arange(tokens.shape[1])))
    x = jnp.take(params["embedding"], tokens, axis=0)

    def layer(x, weights, layer_cache):
        block = _merge(graph, abstract, weights)
        x, layer_cache, trace = block(x, layer_cache, position, moments=moments, head_jsd=head_jsd)
        return x, (layer_cache, trace, x if stream else None)

    if isinstance(cache, LayerCache):
        first = x
        x, (cache, traces, after) = jax.lax.scan(lambda x, xs: layer(x, *xs), x, (params["layers"], cache))
        stack = None if after is None else jnp.concatenate([first[None], after])
        return Forward(x, stack, traces, cache)
    states, traces, caches = [x], [], []
    for i, (weights, layer_cache) in enumerate(zip(params["layers"], cache, strict=True)):
        with jax.named_scope(f"layer_{i + 1}"):
            x, (layer_cache, trace, _) = layer(x, weights, layer_cache)
        states.append(x)
        traces.append(trace)
        caches.append(layer_cache)
    traces = jax.tree.map(lambda *ys: jnp.stack(ys), *traces)
    return Forward(x, jnp.stack(states) if stream else None, traces, caches)


def final_norm(config: DecoderConfig, params: Params, x: Float[Array, "*r D"]) -> Float[Array, "*r D"]:
    """The norm before the unembedding."""
    norm = nnx.eval_shape(lambda: RMSNorm(config))
    return _merge(*nnx.split(norm), params["final_norm"])(x)


def unembedding(params: Params) -> Float[Array, "V D"]:
    """One row per token; the embedding itself where they are tied."""
    return params.get("unembedding", params["embedding"])


def unembed(config: DecoderConfig, params: Params, x: Float[Array, "*r D"]) -> Float[Array, "*r V"]:
    """Next-token logits of residual streams, float32."""
    normed = final_norm(config, params, x)
    return jnp.einsum("...d,vd->...v", normed, unembedding(params), preferred_element_type=jnp.float32)


def forward_logits(config: DecoderConfig, params: Params, tokens: Int[Array, "B T"]) -> Float[Array, "B T V"]:
    """Logits of every position of whole sequences, float32; differentiable, for training and for tests."""
    batch, length = tokens.shape
    dtype = params["embedding"].dtype
    cache = empty_cache(config, batch, length, stacked=is_stacked(params), dtype=dtype)
    result = forward(config, params, tokens, cache, jnp.zeros(batch, jnp.int32))
    return unembed(config, params, result.hidden)
