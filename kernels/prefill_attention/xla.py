"""Prefill attention for XLA: blocks of queries, each over the whole cache, or over tiles of a long one."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import key_tiles
from ..attention import (
    AttentionSums,
    Keys,
    Mask,
    PerQuery,
    Queries,
    Starts,
    Values,
    Window,
    attention_scores,
    first_visible,
    group_heads,
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
) -> AttentionSums:
    """Compute prefill_attention a block of queries at a time."""
    keys = k.shape[3]
    options: dict[str, Any] = {"scale": scale, "soft_cap": soft_cap, "moments": moments, "logsumexp": logsumexp}

    def whole_cache(q: Queries, position: PerQuery) -> AttentionSums:
        mask, first = visible_keys(position, keys, window)
        return attend(q, k, v, mask, first, **options)

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
    first: PerQuery,
    *,
    scale: float,
    soft_cap: Cap,
    moments: bool,
    logsumexp: bool = False,
) -> AttentionSums:
    """Compute attention over the keys in `mask` with all scores at once, given the first key that each query sees."""
    scores = block_scores(q, k, mask, scale, soft_cap)
    if moments:
        is_sink = (jnp.arange(k.shape[3]) == first[..., None])[:, None, None]
        sink_score = jnp.max(jnp.where(is_sink, scores, MASKED), axis=-1)
        no_sink = Moments.of(jnp.where(is_sink, MASKED, scores))
        all_keys = merge_sink(no_sink, sink_score)
    else:
        sink_score = no_sink = None
        all_keys = Moments.of(scores)
    out = weighted_values(shifted(scores, all_keys.m), v) * all_keys.p_max[..., None]
    sums = sink_score, no_sink, all_keys.logsumexp if logsumexp else None
    return AttentionSums(ungroup_heads(out).astype(q.dtype), *jax.tree.map(ungroup_heads, sums))


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
) -> AttentionSums:
    """Compute attention over a long cache, given each query's position and the first key it sees."""
    heads = group_heads(q, k.shape[1]).shape[:-1]
    empty = Moments.empty(heads)

    def step(
        carry: tuple[Array, Array, Array, Moments], cut: Callable[[Array, int], Array], mask: Mask, is_sink: Mask
    ) -> tuple[Array, Array, Array, Moments]:
        out, m, sink_score, counted = carry
        keys, values = cut(k, 3), cut(v, 2)
        scores = block_scores(q, keys, mask, scale, soft_cap)
        new_m = jnp.maximum(m, jnp.max(scores, axis=-1))
        rescale = jnp.exp(jnp.maximum(m - new_m, FLOOR))
        out = out * rescale[..., None] + weighted_values(shifted(scores, new_m), values)
        if moments:
            is_sink = is_sink[:, None, None]
            sink_score = jnp.maximum(sink_score, jnp.max(jnp.where(is_sink, scores, MASKED), axis=-1))
            scores = jnp.where(is_sink, MASKED, scores)
        return out, new_m, sink_score, counted.merge(Moments.of(scores))

    init = jnp.zeros((*heads, v.shape[3])), empty.m, empty.m, empty
    out, _, sink_score, counted = fold_key_tiles(step, init, position, first, k.shape[3])
    all_keys = merge_sink(counted, sink_score) if moments else counted
    out = ungroup_heads(out * all_keys.p_max[..., None]).astype(q.dtype)
    sums = *((sink_score, counted) if moments else (None, None)), all_keys.logsumexp if logsumexp else None
    return AttentionSums(out, *jax.tree.map(ungroup_heads, sums))


def weighted_values(u: Float[Array, "B K G T S"], v: Values) -> Float[Array, "B K G T H"]:
    """Return Σ_s e^u v in float32."""
    return einsum("bkgts,bksh->bkgth", jnp.exp(u).astype(v.dtype), v, jnp.float32)
