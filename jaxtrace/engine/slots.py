"""A state's rows and slots: rows begun, put in the place of others, and a cache that grows with what they need."""

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
from jaxtrace.models.cache import KVCache, LayerCache
from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.decoder import Params
from jaxtrace.models.images import Images
from jaxtrace.models.stacked import Stacked
from jaxtrace.parallel.sharding import state_shardings
from jaxtrace.settings.probes import Probes


@functools.partial(jax.jit, static_argnames=("config", "probes", "sampler", "slots", "mesh"))
def begin(
    params: Params,
    key: Key[Array, ""],
    numbers: Int[Array, " A"],
    images: Images | None,
    *,
    config: DecoderConfig,
    probes: Probes,
    sampler: Sampler,
    slots: int,
    mesh: Mesh | None,
) -> State:
    """A state of rows of which nothing is fed; the key of each is `key` folded with its number."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)
    begun = init_state(config, params, len(numbers), slots, probes, keys=keys, images=images, sampler=sampler)
    return placed(begun, mesh)


@functools.partial(jax.jit, static_argnames=("config", "rows", "slots", "mesh"))
def repeat(begun: State, *, config: DecoderConfig, rows: int, slots: int, mesh: Mesh | None) -> State:
    """A state of B rows like the first one of `begun`, of which none is active."""

    def first(path: Any, x: Array) -> Array:
        return jnp.take(x, jnp.zeros(rows, jnp.int32), axis=_row_axis(path))

    state = jax.tree_util.tree_map_with_path(first, _with_slots(begun, config, slots))
    return placed(dataclasses.replace(state, active=jnp.zeros(rows, bool)), mesh)


@functools.partial(jax.jit, static_argnames=("config", "slots", "mesh"))
def resize(state: State, *, config: DecoderConfig, slots: int, mesh: Mesh | None) -> State:
    """The state with a cache of so many slots; what rows have fed must fit."""
    return placed(_with_slots(state, config, slots), mesh)


@functools.partial(jax.jit, static_argnames=("config", "slots", "mesh"), donate_argnames="state")
def put(
    state: State, begun: State, rows: Int[Array, " A"], *, config: DecoderConfig, slots: int, mesh: Mesh | None
) -> State:
    """The state, of so many slots, with rows that were begun in the place of some of its own; row B is no row."""

    def write(path: Any, old: Array, new: Array) -> Array:
        return old.at[(slice(None),) * _row_axis(path) + (rows,)].set(new, mode="drop")

    return placed(jax.tree_util.tree_map_with_path(write, state, _with_slots(begun, config, slots)), mesh)


def placed(state: State, mesh: Mesh | None) -> State:
    """On a mesh, every part where it is used."""
    return state if mesh is None else jax.lax.with_sharding_constraint(state, state_shardings(state, mesh))


def _row_axis(path: Any) -> int:
    """Which axis of a state's array is that of the rows."""
    return int(any(getattr(key, "name", None) == "repeated" for key in path))


def _with_slots(state: State, config: DecoderConfig, slots: int) -> State:
    """The state with the first so many of its slots of text, and empty ones where it has fewer."""

    def fit(x: Array, axis: int) -> Array:
        kept = jax.lax.slice_in_dim(x, 0, min(slots, x.shape[axis]), axis=axis)
        return jnp.pad(kept, [(0, slots - n if i == axis else 0) for i, n in enumerate(kept.shape)])

    def layer(kind: LayerKind, old: LayerCache | None) -> LayerCache | None:
        if kind.cross_attention or old is None:
            return old
        return LayerCache(fit(old.k, old.k.ndim - 1), fit(old.v, old.v.ndim - 2))

    def layers(kinds: Sequence[LayerKind], old: list[LayerCache | None]) -> list[LayerCache | None]:
        return [layer(*each) for each in zip(kinds, old, strict=False)]

    cache: KVCache = state.cache
    if isinstance(cache, Stacked):
        cache = Stacked(layers(config.pattern, cache.repeated), layers(config.pattern, cache.rest))
    else:
        cache = layers(config.kinds, cache)
    return dataclasses.replace(state, cache=cache)
