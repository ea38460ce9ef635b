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
from jaxtrace.models.cache import KVCache, LayerCache, LayerState
from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.decoder import Params
from jaxtrace.models.images import Images
from jaxtrace.models.stacked import StackedLayers
from jaxtrace.parallel.sharding import state_shardings
from jaxtrace.settings.probes import Probes


@functools.partial(jax.jit, static_argnames=("config", "probes", "sampler", "slots", "mesh"))
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
    mesh: Mesh | None,
) -> State:
    """Return a state of new rows; the random key of each is `key` folded with the row's number."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)
    lengths = {"prompt_length": prompt_length, "first": first, "text_length": text_length}
    options = {"keys": keys, "images": images, "sampler": sampler, **lengths}
    state = init_state(config, params, len(numbers), slots, probes, **options)
    return _on_mesh(state, mesh)


@functools.partial(jax.jit, static_argnames=("config", "rows", "slots", "mesh"))
def idle_rows(template: State, *, config: DecoderConfig, rows: int, slots: int, mesh: Mesh | None) -> State:
    """Return a state of inactive rows, each a copy of the first row of `template`."""

    def first(path: Any, x: Array) -> Array:
        return jnp.take(x, jnp.zeros(rows, jnp.int32), axis=_row_axis(path))

    state = jax.tree_util.tree_map_with_path(first, _with_slots(template, config, slots))
    return _on_mesh(dataclasses.replace(state, active=jnp.zeros(rows, bool)), mesh)


@functools.partial(jax.jit, static_argnames=("config", "slots", "mesh"))
def resize_cache(state: State, *, config: DecoderConfig, slots: int, mesh: Mesh | None) -> State:
    """Return the state with another number of cache slots; the positions fed so far must fit."""
    return _on_mesh(_with_slots(state, config, slots), mesh)


@functools.partial(jax.jit, static_argnames=("config", "slots", "mesh"), donate_argnames="state")
def insert_rows(
    state: State, new: State, rows: Int[Array, " A"], *, config: DecoderConfig, slots: int, mesh: Mesh | None
) -> State:
    """Replace rows of the state, which has `slots` cache slots, by new ones; row number B is dropped."""

    def write(path: Any, old: Array, new: Array) -> Array:
        return old.at[(slice(None),) * _row_axis(path) + (rows,)].set(new, mode="drop")

    return _on_mesh(jax.tree_util.tree_map_with_path(write, state, _with_slots(new, config, slots)), mesh)


def _on_mesh(state: State, mesh: Mesh | None) -> State:
    return state if mesh is None else jax.lax.with_sharding_constraint(state, state_shardings(state, mesh))


def _row_axis(path: Any) -> int:
    """Return the axis of a state's array that holds the rows: 1 for caches of stacked layers, else 0."""
    return int(any(getattr(key, "name", None) == "repeated" for key in path))


def _with_slots(state: State, config: DecoderConfig, slots: int) -> State:
    """Cut or zero-pad the text caches of a state to a number of slots."""

    def fit(x: Array, axis: int) -> Array:
        kept = jax.lax.slice_in_dim(x, 0, min(slots, x.shape[axis]), axis=axis)
        return jnp.pad(kept, [(0, slots - n if i == axis else 0) for i, n in enumerate(kept.shape)])

    def layer(kind: LayerKind, old: LayerState) -> LayerState:
        if kind.cross_attention or not isinstance(old, LayerCache):
            return old
        return LayerCache(fit(old.k, old.k.ndim - 1), fit(old.v, old.v.ndim - 2))

    def layers(kinds: Sequence[LayerKind], old: list[LayerState]) -> list[LayerState]:
        return [layer(*each) for each in zip(kinds, old, strict=False)]

    cache: KVCache = state.cache
    if isinstance(cache, StackedLayers):
        cache = StackedLayers(layers(config.pattern, cache.repeated), layers(config.pattern, cache.tail))
    else:
        cache = layers(config.kinds, cache)
    return dataclasses.replace(state, cache=cache)
