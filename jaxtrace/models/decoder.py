"""The one decoder as an NNX module, and its parameters as a plain tree."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.layers import Block, stream_norm, weight_of
from jaxtrace.models.stacked import Stacked
from jaxtrace.models.vision import VisionEncoder

Params = dict[str, Any]  # the module's parameters by name; "layers" a list of blocks, or `Stacked`


class Decoder(nnx.Module):
    """A decoder-only transformer, as its `DecoderConfig` says, with the image encoder it looks through, if any."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs):
        self.embedding = weight_of(rngs, config.vocab + config.extra_tokens, config.embed)
        self.positions = weight_of(rngs, config.context, config.embed) if config.learned_positions else None
        self.layers = nnx.List([Block(config, kind, rngs) for kind in config.kinds])
        self.final_norm = stream_norm(config)
        self.unembedding = None if config.tied else weight_of(rngs, config.vocab, config.embed)
        self.vision = None if config.vision is None else VisionEncoder(config, rngs=rngs)


Definition = tuple[nnx.GraphDef, nnx.State]  # a module's graph, and the abstract state that fills it


@functools.lru_cache
def block_definition(config: DecoderConfig, kind: LayerKind) -> Definition:
    """That of a block of some kind."""
    return nnx.split(nnx.eval_shape(lambda: Block(config, kind, nnx.Rngs(0))))


@functools.lru_cache
def rest_definition(config: DecoderConfig) -> Definition:
    """That of the decoder without its blocks."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(dataclasses.replace(config, layers=0), rngs=nnx.Rngs(0))))


def merge(definition: Definition, params: Params) -> Any:
    """A module of given parameters."""
    graph, abstract = definition
    state = jax.tree.map(lambda x: x, abstract)
    nnx.replace_by_pure_dict(state, _numbered(params))
    return nnx.merge(graph, state)


def as_module(config: DecoderConfig, params: Params) -> Decoder:
    """The parameters as an NNX module, to inspect."""
    definition = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
    layers = params["layers"].layers() if is_stacked(params) else params["layers"]
    return merge(definition, {**params, "layers": layers})


def abstract_params(config: DecoderConfig, *, stacked: bool = False) -> Params:
    """Shapes and dtypes of all parameters, layers as a list or stacked."""
    blocks = [_listed(nnx.to_pure_dict(block_definition(config, kind)[1])) for kind in config.kinds]
    params = {**_listed(nnx.to_pure_dict(rest_definition(config)[1])), "layers": blocks}
    return jax.eval_shape(functools.partial(stack_layers, config), params) if stacked else params


def is_stacked(params: Params) -> bool:
    """Whether the layers are stacked (scanned) or a list (unrolled)."""
    return isinstance(params["layers"], Stacked)


def stack_layers(config: DecoderConfig, params: Params) -> Params:
    """Parameters with the layers' weights stacked, for `lax.scan` over layers."""
    return {**params, "layers": Stacked.of(params["layers"], len(config.pattern))}


def unembedding(params: Params) -> Float[Array, "V D"]:
    """One row per token; the embedding itself where they are tied."""
    return params.get("unembedding", params["embedding"])


def init_params(
    config: DecoderConfig,
    key: Key[Array, ""],
    *,
    dtype: Any = jnp.float32,
    stacked: bool = False,
    shardings: Params | None = None,
) -> Params:
    """Random parameters: normal with standard deviation 0.02, norms 1, biases and gates 0.

    They are made on the device, one layer after another, each number where its sharding wants it.

    Args:
      config: of the decoder.
      key: the same key gives the same numbers, stacked or not, on any mesh.
      dtype: of the parameters.
      stacked: layers stacked for a scan.
      shardings: of every parameter, in the layout asked for; None for the default device.
    """
    dtype = jnp.dtype(dtype)
    keys = jax.random.split(key, config.layers + 1)
    of = dict(shardings or {})
    of_layers = of.pop("layers", None)
    params = _initialiser(config, None, dtype, False, of or None)(keys[0])
    period = len(config.pattern) if stacked else 1
    whole = config.layers - config.layers % period if stacked else 0
    one = [
        _initialiser(config, config.kind(i), dtype, False, _part(of_layers, i - whole if stacked else i))(keys[1 + i])
        for i in range(whole, config.layers)
    ]
    if not stacked:
        return {**params, "layers": one}
    repeated = [
        _initialiser(config, kind, dtype, True, None if of_layers is None else of_layers.repeated[p])(
            keys[1 + p : 1 + whole : period]
        )
        for p, kind in enumerate(config.pattern)
    ]
    return {**params, "layers": Stacked(repeated, one)}


def _part(of_layers: list[Params] | Stacked | None, i: int) -> Params | None:
    if of_layers is None:
        return None
    return of_layers.rest[i] if isinstance(of_layers, Stacked) else of_layers[i]


def _initialiser(config: DecoderConfig, kind: LayerKind | None, dtype: Any, many: bool, shardings: Params | None):
    leaves, tree = jax.tree.flatten(shardings)
    return _compiled(config, kind, dtype, many, tuple(leaves), tree)


@functools.lru_cache
def _compiled(config: DecoderConfig, kind: LayerKind | None, dtype: Any, many: bool, leaves: tuple, tree: Any):
    """key → parameters of a block of a kind, or of everything but the blocks; of `many` keys on a leading axis."""

    def make(key: Key[Array, ""]) -> Params:
        rngs = nnx.Rngs(params=key)
        rest = dataclasses.replace(config, layers=0)
        module = Decoder(rest, rngs=rngs) if kind is None else Block(config, kind, rngs)
        params = _listed(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
        return jax.tree.map(lambda x: x.astype(dtype), params)

    every = functools.partial(jax.lax.map, make)
    return jax.jit(every if many else make, out_shardings=jax.tree.unflatten(tree, leaves))


def _listed(tree: Any) -> Any:
    """Lists where NNX has dicts of numbers."""
    if not isinstance(tree, dict):
        return tree
    if tree and all(isinstance(key, int) for key in tree):
        return [_listed(tree[i]) for i in range(len(tree))]
    return {key: _listed(value) for key, value in tree.items()}


def _numbered(tree: Any) -> Any:
    """Dicts of numbers where `_listed` has lists."""
    if isinstance(tree, list):
        return {i: _numbered(value) for i, value in enumerate(tree)}
    return {key: _numbered(value) for key, value in tree.items()} if isinstance(tree, dict) else tree
