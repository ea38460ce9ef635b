"""The decoder as an NNX module, and its parameters as a plain tree."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.layers import Block, LayerInputs
from jaxtrace.models.norms import stream_norm
from jaxtrace.models.parameters import param_dtype, random_weight
from jaxtrace.models.stacked import StackedLayers
from jaxtrace.models.vision import VisionEncoder

Params = dict[str, Any]  # parameters by name; "layers" is a list of blocks or `StackedLayers`


class Decoder(nnx.Module):
    """A decoder-only transformer with an optional image encoder."""

    def __init__(self, config: DecoderConfig, *, rngs: nnx.Rngs, blocks: bool = True) -> None:
        self.embedding = random_weight(rngs, config.vocab_size + config.extra_tokens, config.embed_dim)
        self.positions = random_weight(rngs, config.context, config.embed_dim) if config.learned_positions else None
        self.layer_inputs = LayerInputs(config, rngs) if config.layer_input else None
        self.layers = nnx.List([Block(config, kind, rngs) for kind in config.kinds] if blocks else [])
        self.final_norm = stream_norm(config)
        self.unembedding = None if config.tied else random_weight(rngs, config.vocab_size, config.embed_dim)
        self.vision = None if config.vision is None else VisionEncoder(config, rngs=rngs)


Definition = tuple[nnx.GraphDef, nnx.State]  # graph of a module, and its abstract state


@functools.lru_cache
def block_definition(config: DecoderConfig, kind: LayerKind) -> Definition:
    """Return the definition of a block of a kind."""
    return nnx.split(nnx.eval_shape(lambda: Block(config, kind, nnx.Rngs(0))))


@functools.lru_cache
def outer_definition(config: DecoderConfig) -> Definition:
    """Return the definition of the decoder without its blocks."""
    return nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0), blocks=False)))


def merge(definition: Definition, params: Params) -> Any:
    """Build a module from a definition and parameters."""
    graph, abstract = definition
    state = jax.tree.map(lambda x: x, abstract)
    nnx.replace_by_pure_dict(state, _lists_to_dicts(params))
    return nnx.merge(graph, state)


def as_module(config: DecoderConfig, params: Params) -> Decoder:
    """Return the parameters as an NNX module, for inspection."""
    definition = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
    layers = params["layers"].layers() if is_stacked(params) else params["layers"]
    return merge(definition, {**params, "layers": layers})


def abstract_params(config: DecoderConfig, *, stacked: bool = False, dtype: Any = jnp.float32) -> Params:
    """Return the shapes and dtypes of all parameters of a decoder with some dtype, with layers as a list or stacked."""
    blocks = [_dicts_to_lists(nnx.to_pure_dict(block_definition(config, kind)[1])) for kind in config.kinds]
    params = {**_dicts_to_lists(nnx.to_pure_dict(outer_definition(config)[1])), "layers": blocks}
    params = jax.tree_util.tree_map_with_path(
        lambda path, x: jax.ShapeDtypeStruct(x.shape, param_dtype(path, dtype)), params
    )
    return jax.eval_shape(functools.partial(stack_layers, config), params) if stacked else params


def parameter_count(config: DecoderConfig) -> int:
    """Return the number of parameters of a decoder; a tied unembedding counts once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(config)))


def active_parameter_count(config: DecoderConfig) -> int:
    """Return the number of parameters that one token uses: in a layer of experts, those of its chosen experts."""
    count, experts = parameter_count(config), config.experts
    if experts is None:
        return count
    of_layers = (layer["feed_forward"].get("experts") for layer in abstract_params(config)["layers"])
    in_experts = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves([*of_layers]))
    return count - in_experts // experts.number * (experts.number - experts.chosen)


def is_stacked(params: Params) -> bool:
    """Return True if the layers are stacked (scanned), False if they are a list (unrolled)."""
    return isinstance(params["layers"], StackedLayers)


def stack_layers(config: DecoderConfig, params: Params) -> Params:
    """Stack the layers' weights, for `lax.scan` over layers."""
    return {**params, "layers": StackedLayers.of(params["layers"], len(config.pattern))}


def unembedding(params: Params) -> Float[Array, "V D"]:
    """Return the unembedding, one row per token; with tied embeddings it is the embedding."""
    return params.get("unembedding", params["embedding"])


def init_params(
    config: DecoderConfig,
    key: Key[Array, ""],
    *,
    dtype: Any = jnp.float32,
    stacked: bool = False,
    shardings: Params | None = None,
) -> Params:
    """Draw random parameters: normal with standard deviation 0.02, norms 1, biases and gates 0.

    Parameters are drawn on the devices that their shardings name, one layer after another.

    Args:
      config: decoder's config.
      key: random key; the same key gives the same numbers, stacked or not, on any mesh.
      dtype: dtype of the parameters.
      stacked: True to stack the layers for a scan.
      shardings: sharding of every parameter, in the requested layout; None for the default device.
    """
    dtype = jnp.dtype(dtype)
    keys = jax.random.split(key, config.num_layers + 1)
    shardings = dict(shardings or {})
    of_layers = shardings.pop("layers", None)
    params = _initialiser(config, None, dtype, False, shardings or None)(keys[0])
    period = len(config.pattern) if stacked else 1
    scanned = config.num_layers - config.num_layers % period if stacked else 0
    of_tail = of_layers.tail if isinstance(of_layers, StackedLayers) else of_layers
    tail = [
        _initialiser(config, config.kind(i), dtype, False, None if of_tail is None else of_tail[i - scanned])(
            keys[1 + i]
        )
        for i in range(scanned, config.num_layers)
    ]
    if not stacked:
        return {**params, "layers": tail}
    repeated = [
        _initialiser(config, kind, dtype, True, None if of_layers is None else of_layers.repeated[p])(
            keys[1 + p : 1 + scanned : period]
        )
        for p, kind in enumerate(config.pattern)
    ]
    return {**params, "layers": StackedLayers(repeated, tail)}


Initialiser = Callable[[Key[Array, "..."]], Params]


def _initialiser(
    config: DecoderConfig, kind: LayerKind | None, dtype: Any, many: bool, shardings: Params | None
) -> Initialiser:
    leaves, structure = jax.tree.flatten(shardings)
    return _compiled(config, kind, dtype, many, tuple(leaves), structure)


@functools.lru_cache
def _compiled(
    config: DecoderConfig, kind: LayerKind | None, dtype: Any, many: bool, leaves: tuple, structure: Any
) -> Initialiser:
    """Compile key → parameters of a block, or with kind None of everything but the blocks.

    With `many`, it takes several keys and returns parameters with a leading axis.
    """

    def make(key: Key[Array, ""]) -> Params:
        rngs = nnx.Rngs(params=key)
        module = Decoder(config, rngs=rngs, blocks=False) if kind is None else Block(config, kind, rngs)
        params = _dicts_to_lists(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
        return jax.tree_util.tree_map_with_path(lambda path, x: x.astype(param_dtype(path, dtype)), params)

    every = functools.partial(jax.lax.map, make)
    return jax.jit(every if many else make, out_shardings=jax.tree.unflatten(structure, leaves))


def _dicts_to_lists(tree: Any) -> Any:
    """Replace NNX's dicts with integer keys by lists."""
    if not isinstance(tree, dict):
        return tree
    if tree and all(isinstance(key, int) for key in tree):
        return [_dicts_to_lists(tree[i]) for i in range(len(tree))]
    return {key: _dicts_to_lists(value) for key, value in tree.items()}


def _lists_to_dicts(tree: Any) -> Any:
    """Invert `_dicts_to_lists`."""
    if isinstance(tree, list):
        return {i: _lists_to_dicts(value) for i, value in enumerate(tree)}
    return {key: _lists_to_dicts(value) for key, value in tree.items()} if isinstance(tree, dict) else tree
