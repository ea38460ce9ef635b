"""prefill_attention for XLA: blocks of queries, each over the whole cache, or over tiles of a long one."""

import jax
import jax.numpy as jnp

from .. import key_tiles
from ..attention import (
    AttentionSums,
    first_visible,
    grouped,
    masked,
    positions,
    scores_of,
    ungrouped,
    visible_keys,
    with_sink,
)
from ..key_tiles import over_key_tiles
from ..moments import FLOOR, MASKED, Moments, shifted

BLOCK_ENTRIES = 1 << 20  # scores of one block of queries: 4 MiB in float32, which several passes find in a cache


def prefill_attention(q, k, v, start, *, scale, window, soft_cap, moments):
    keys = k.shape[3]
    options = {"scale": scale, "soft_cap": soft_cap, "moments": moments}

    def block(q, position):
        mask, first = visible_keys(position, keys, window)
        return attend(q, k, v, mask, first, **options)

    def block_of_tiles(q, position):
        return attend_tiles(q, k, v, position, first_visible(position, window), **options)

    tiled = key_tiles.in_tiles(q.shape[1], keys)
    of_block, held = (block_of_tiles, key_tiles.TILE) if tiled else (block, keys)
    return over_query_blocks(of_block, q, positions(q, start), held)


def over_query_blocks(function, q, seen, keys):
    """Applies `function(q, seen)`, both [B, T, …], to blocks of T, and joins the results."""
    b, t, n, _ = q.shape
    size = max(1, BLOCK_ENTRIES // (b * n * keys))
    if t <= size:
        return function(q, seen)
    count = -(-t // size)
    size = -(-t // count)

    def blocks(x):
        padded = jnp.pad(x, ((0, 0), (0, count * size - t), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(padded.reshape(b, count, size, *x.shape[2:]), 1, 0)

    result = jax.lax.map(lambda xs: function(*xs), (blocks(q), blocks(seen)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(b, count * size, *x.shape[3:])[:, :t], result)


def block_scores(q, k, mask, scale, soft_cap):
    """Scores [B, K, G, T, S] of q[B, T, N, H], those outside `mask` [B, T, S] marked absent."""
    return masked(scores_of(grouped(q, k.shape[1]), k, scale=scale, soft_cap=soft_cap), mask[:, None, None])


def attend(q, k, v, mask, first, *, scale, soft_cap, moments):
    """Attention of q[B, T, N, H] over the keys in `mask`, scores of all of it held at once.

    `first` [B, T] is the first key that each query sees.
    """
    scores = block_scores(q, k, mask, scale, soft_cap)
    if not moments:
        whole = Moments.of(scores)
        out = weighted(shifted(scores, whole.m), v) * whole.p_max[..., None]
        return AttentionSums(ungrouped(out).astype(q.dtype), None, None)
    is_first = (jnp.arange(k.shape[3]) == first[..., None])[:, None, None]
    sink = jnp.max(jnp.where(is_first, scores, MASKED), axis=-1)
    rest = Moments.of(jnp.where(is_first, MASKED, scores))
    whole = with_sink(rest, sink)
    out = weighted(shifted(scores, whole.m), v) * whole.p_max[..., None]
    return AttentionSums(ungrouped(out).astype(q.dtype), ungrouped(sink), jax.tree.map(ungrouped, rest))


def attend_tiles(q, k, v, position, first, *, scale, soft_cap, moments):
    """The same over a long cache: what a query sees is given by its own position and its first key."""
    options = {"scale": scale, "soft_cap": soft_cap}
    heads = grouped(q, k.shape[1]).shape[:-1]
    sums = Moments.empty(heads)

    def step(carry, cut, mask, is_first):
        out, m, sink, rest = carry
        keys, values = cut(k, 3), cut(v, 2)
        scores = block_scores(q, keys, mask, **options)
        largest = jnp.maximum(m, jnp.max(scores, axis=-1))
        scale_of_old = jnp.exp(jnp.maximum(m - largest, FLOOR))
        out = out * scale_of_old[..., None] + weighted(shifted(scores, largest), values)
        if moments:
            is_first = is_first[:, None, None]
            sink = jnp.maximum(sink, jnp.max(jnp.where(is_first, scores, MASKED), axis=-1))
            scores = jnp.where(is_first, MASKED, scores)
        return out, largest, sink, rest.merge(Moments.of(scores))

    init = jnp.zeros((*heads, v.shape[3])), sums.m, sums.m, sums
    out, _, sink, rest = over_key_tiles(step, init, position, first, k.shape[3])
    whole = with_sink(rest, sink) if moments else rest
    out = ungrouped(out * whole.p_max[..., None]).astype(q.dtype)
    return (
        AttentionSums(out, ungrouped(sink), jax.tree.map(ungrouped, rest))
        if moments
        else AttentionSums(out, None, None)
    )


def weighted(u, v):
    """Σ_s e^u v of u[B, K, G, T, S], in float32."""
    return jnp.einsum("bkgts,bksh->bkgth", jnp.exp(u).astype(v.dtype), v, preferred_element_type=jnp.float32)
