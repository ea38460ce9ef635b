"""Rows and cache slots of a state: new rows, row replacement, and caches that grow with what the rows need."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Int, Key

from jaxtrace.engine.samplers import Sampler
from jaxtrace.engine.step import State, init_state
from jaxtrace.models.cache import KVCache, LayerCache, LayerState, window_slots
from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.decoder import Params
from jaxtrace.models.images import Images
from jaxtrace.models.stacked import StackedLayers
from jaxtrace.parallel.sharding import state_shardings
from jaxtrace.settings.probes import Probes


@functools.partial(jax.jit, static_argnames=("config", "probes", "sampler", "slots", "chunk", "mesh"))
def init_rows(
    params: Params,
    key: Key[Array, ""],
    numbers: Int[Array, " A"],
    prompt_length: Int[Array, " A"],
    first: Int[Array, " A"],
    text_length: Int[Array, " A"],
    images: Images | None,
    *,
    config: DecoderConfig,
    probes: Probes,
    sampler: Sampler,
    slots: int,
    chunk: int | None,
    mesh: Mesh | None,
) -> State:
    """Return a state of new rows; the random key of each is `key` folded with the row's number."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)
    lengths = {"prompt_length": prompt_length, "first": first, "text_length": text_length}
    options = {"keys": keys, "images": images, "sampler": sampler, "chunk": chunk, **lengths}
    state = init_state(config, params, len(numbers), slots, probes, **options)
    return _on_mesh(state, mesh)


@functools.partial(jax.jit, static_argnames=("config", "rows", "slots", "chunk", "mesh"))
def idle_rows(
    template: State, *, config: DecoderConfig, rows: int, slots: int, chunk: int | None, mesh: Mesh | None
) -> State:
    """Return a state of inactive rows, each a copy of the first row of `template`."""

    def first(path: Any, x: Array) -> Array:
        return jnp.take(x, jnp.zeros(rows, jnp.int32), axis=_row_axis(path))

    state = jax.tree_util.tree_map_with_path(first, _with_slots(template, config, slots, chunk))
    return _on_mesh(dataclasses.replace(state, active=jnp.zeros(rows, bool)), mesh)


@functools.partial(jax.jit, static_argnames=("config", "slots", "chunk", "mesh"))
def resize_cache(state: State, *, config: DecoderConfig, slots: int, chunk: int | None, mesh: Mesh | None) -> State:
    """Return the state with another number of cache slots; the positions fed so far must fit."""
    return _on_mesh(_with_slots(state, config, slots, chunk), mesh)


@functools.partial(jax.jit, static_argnames=("config", "slots", "chunk", "mesh"), donate_argnames="state")
def insert_rows(
    state: State,
    new: State,
    rows: Int[Array, " A"],
    *,
    config: DecoderConfig,
    slots: int,
    chunk: int | None,
    mesh: Mesh | None,
) -> State:
    """Replace rows of the state, which has `slots` cache slots, by new ones; row number B is dropped."""

    def write(path: Any, old: Array, new: Array) -> Array:
        return old.at[(slice(None),) * _row_axis(path) + (rows,)].set(new, mode="drop")

    return _on_mesh(jax.tree_util.tree_map_with_path(write, state, _with_slots(new, config, slots, chunk)), mesh)


def _on_mesh(state: State, mesh: Mesh | None) -> State:
    return state if mesh is None else jax.lax.with_sharding_constraint(state, state_shardings(state, mesh))


def _row_axis(path: Any) -> int:
    """Return the axis of a state's array that holds the rows: 1 for caches of stacked layers, else 0."""
    return int(any(getattr(key, "name", None) == "repeated" for key in path))


def _with_slots(state: State, config: DecoderConfig, slots: int, chunk: int | None) -> State:
    """Resize the text caches of a state to a number of slots, as `empty_cache` makes them."""

    def layer(kind: LayerKind, old: LayerState) -> LayerState:
        if kind.cross_attention or not isinstance(old, LayerCache):
            return old
        window = window_slots(config, kind, slots, chunk)
        return old.resized(window or slots, window=window is not None)

    def layers(kinds: Sequence[LayerKind], old: list[LayerState]) -> list[LayerState]:
        return [layer(*each) for each in zip(kinds, old, strict=False)]

    cache: KVCache = state.cache
    if isinstance(cache, StackedLayers):
        cache = StackedLayers(layers(config.pattern, cache.repeated), layers(config.pattern, cache.tail))
    else:
        cache = layers(config.kinds, cache)
    return dataclasses.replace(state, cache=cache)
