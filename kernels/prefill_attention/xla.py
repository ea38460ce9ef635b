"""Prefill attention for XLA: blocks of queries, each over the whole cache, or over tiles of a long one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import key_tiles
from ..attention import (
    AttentionSums,
    Keys,
    Mask,
    PerQuery,
    PositionSums,
    Queries,
    Starts,
    Values,
    Window,
    attention_scores,
    first_visible,
    group_heads,
    key_scores,
    mask_scores,
    merge_sink,
    positions,
    ungroup_heads,
    visible_keys,
)
from ..key_tiles import fold_key_tiles
from ..moments import FLOOR, MASKED, Moments, shifted
from ..precision import einsum
from ..soft_cap import Cap

BLOCK_ENTRIES = 1 << 20  # scores of one block of queries: 4 MiB in float32, which stay in a cache for several passes


def prefill_attention(
    q: Queries,
    k: Keys,
    v: Values,
    start: Starts,
    *,
    scale: float,
    window: Window,
    soft_cap: Cap,
    moments: bool,
    logsumexp: bool,
    prompt_length: Starts | None,
) -> AttentionSums:
    """Compute prefill_attention a block of queries at a time."""
    keys = k.shape[3]
    options: dict[str, Any] = {"scale": scale, "soft_cap": soft_cap, "moments": moments, "logsumexp": logsumexp}
    options |= {"prompt_length": prompt_length}

    def whole_cache(q: Queries, position: PerQuery) -> AttentionSums:
        return attend(q, k, v, visible_keys(position, keys, window), position, **options)

    def by_tiles(q: Queries, position: PerQuery) -> AttentionSums:
        return attend_tiles(q, k, v, position, first_visible(position, window), **options)

    tiled = key_tiles.reads_tiles(q.shape[1], keys)
    function, held_keys = (by_tiles, key_tiles.TILE) if tiled else (whole_cache, keys)
    return map_query_blocks(function, q, positions(q, start), held_keys)


def map_query_blocks(function: Callable[[Queries, Array], Any], q: Queries, of_query: Array, keys: int) -> Any:
    """Apply `function(q, of_query)`, both [B, T, …], to blocks of T, and join the results.

    Args:
      function: function of a block of queries and of its slice of `of_query`; its results are [B, T, …].
      of_query: an array [B, T, …] that is cut like the queries.
      keys: number of keys whose scores `function` holds at once for each query.
    """
    b, t, n, _ = q.shape
    size = max(1, BLOCK_ENTRIES // (b * n * keys))
    if t <= size:
        return function(q, of_query)
    count = -(-t // size)
    size = -(-t // count)

    def blocks(x: Array) -> Array:
        padded = jnp.pad(x, ((0, 0), (0, count * size - t), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(padded.reshape(b, count, size, *x.shape[2:]), 1, 0)

    result = jax.lax.map(lambda xs: function(*xs), (blocks(q), blocks(of_query)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(b, count * size, *x.shape[3:])[:, :t], result)


def block_scores(q: Queries, k: Keys, mask: Mask, scale: float, soft_cap: Cap) -> Float[Array, "B K G T S"]:
    """Return the scores, the ones outside `mask` at `MASKED`."""
    scores = attention_scores(group_heads(q, k.shape[1]), k, scale=scale, soft_cap=soft_cap)
    return mask_scores(scores, mask[:, None, None])


def attend(
    q: Queries,
    k: Keys,
    v: Values,
    mask: Mask,
    position: PerQuery | None = None,
    *,
    scale: float,
    soft_cap: Cap,
    moments: bool,
    logsumexp: bool = False,
    prompt_length: Starts | None = None,
) -> AttentionSums:
    """Compute attention over the keys in `mask` with all scores at once.

    `position` is the one of each query; None for keys without positions.
    """
    scores = block_scores(q, k, mask, scale, soft_cap)
    slots = jnp.arange(k.shape[3])
    if position is None or not moments:
        all_keys = no_sink = Moments.of(scores)
    else:
        no_sink = Moments.of(jnp.where(slots == 0, MASKED, scores))
        all_keys = merge_sink(no_sink, scores[..., 0])
    weights = jnp.exp(shifted(scores, all_keys.m))
    out = weighted_values(weights, v) * all_keys.p_max[..., None]
    single = None
    if moments and position is not None:

        def score_at(slot: PerQuery) -> Float[Array, "B K G T"]:
            score = jnp.take_along_axis(scores, jnp.clip(slot, 0, k.shape[3] - 1)[:, None, None, :, None], axis=-1)
            return mask_scores(score[..., 0], slot[:, None, None] >= 0)

        prompt_mass = None if prompt_length is None else prompt_sum(weights, slots, prompt_length) * all_keys.p_max
        single = PositionSums(scores[..., 0], score_at(position), score_at(position - 1), prompt_mass)
    sums = no_sink if moments else None, single, all_keys.logsumexp if logsumexp else None
    return AttentionSums(ungroup_heads(out).astype(q.dtype), *jax.tree.map(ungroup_heads, sums))


def prompt_sum(
    weights: Float[Array, "B K G T S"], slots: Int[Array, " S"], prompt_length: Starts
) -> Float[Array, "B K G T"]:
    """Return the sum of the weights in the slots of each row's prompt."""
    return jnp.sum(jnp.where((slots < prompt_length[:, None])[:, None, None, None], weights, 0.0), axis=-1)


def attend_tiles(
    q: Queries,
    k: Keys,
    v: Values,
    position: PerQuery,
    first: PerQuery,
    *,
    scale: float,
    soft_cap: Cap,
    moments: bool,
    logsumexp: bool,
    prompt_length: Starts | None,
) -> AttentionSums:
    """Compute attention over a long cache, given each query's position and the first key it sees."""
    heads = group_heads(q, k.shape[1]).shape[:-1]
    empty = Moments.empty(heads)

    def step(
        carry: tuple[Array, Array, Array, Moments], cut: Callable[[Array, int], Array], mask: Mask, slots: Array
    ) -> tuple[Array, Array, Array, Moments]:
        out, m, prompt, counted = carry
        keys, values = cut(k, 3), cut(v, 2)
        scores = block_scores(q, keys, mask, scale, soft_cap)
        new_m = jnp.maximum(m, jnp.max(scores, axis=-1))
        rescale = jnp.exp(jnp.maximum(m - new_m, FLOOR))
        weights = jnp.exp(shifted(scores, new_m))
        out = out * rescale[..., None] + weighted_values(weights, values)
        if moments:
            scores = jnp.where(slots == 0, MASKED, scores)
            if prompt_length is not None:
                prompt = prompt * rescale + prompt_sum(weights, slots, prompt_length)
        return out, new_m, prompt, counted.merge(Moments.of(scores))

    init = jnp.zeros((*heads, v.shape[3])), empty.m, empty.l, empty
    out, _, prompt, counted = fold_key_tiles(step, init, position, first, k.shape[3])
    counted = jax.tree.map(ungroup_heads, counted)
    all_keys, single = counted, None
    if moments:
        options: dict[str, Any] = {"scale": scale, "soft_cap": soft_cap}
        slots = jnp.zeros_like(position), position, position - 1
        sink, own, previous = (
            key_scores(q, k, slot, (slot >= first) & (slot <= position), **options) for slot in slots
        )
        all_keys = merge_sink(counted, sink)
        prompt_mass = None if prompt_length is None else ungroup_heads(prompt) * all_keys.p_max
        single = PositionSums(sink, own, previous, prompt_mass)
    out = (ungroup_heads(out) * all_keys.p_max[..., None]).astype(q.dtype)
    return AttentionSums(out, counted if moments else None, single, all_keys.logsumexp if logsumexp else None)


def weighted_values(weights: Float[Array, "B K G T S"], v: Values) -> Float[Array, "B K G T H"]:
    """Return Σ_s weight · v in float32."""
    return einsum("bkgts,bksh->bkgth", weights.astype(v.dtype), v, jnp.float32)
