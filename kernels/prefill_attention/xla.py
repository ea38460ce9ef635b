"""prefill_attention for XLA: blocks of queries, each over the whole cache."""

import jax
import jax.numpy as jnp

from ..attention import (
    AttentionSums,
    grouped,
    masked,
    positions,
    scores_of,
    ungrouped,
    visible_keys,
    with_sink,
)
from ..moments import MASKED, Moments, shifted

BLOCK_ENTRIES = 1 << 24  # scores of one block of queries: 64 MiB in float32
CACHE_ENTRIES = 1 << 20  # the same where they are read out, in several passes


def prefill_attention(q, k, v, start, *, scale, window, soft_cap, moments):
    def block(q, position):
        mask, first = visible_keys(position, k.shape[3], window)
        return attend(q, k, v, mask, first, scale=scale, soft_cap=soft_cap, moments=moments)

    return over_query_blocks(block, q, positions(q, start), k.shape[3], moments=moments)


def over_query_blocks(function, q, seen, keys, *, moments):
    """Applies `function(q, seen)`, both [B, T, …], to blocks of T, and joins the results.

    Blocks are small where moments are read out of their scores.
    """
    b, t, n, _ = q.shape
    size = max(1, (CACHE_ENTRIES if moments else BLOCK_ENTRIES) // (b * n * keys))
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


def weighted(u, v):
    """Σ_s e^u v of u[B, K, G, T, S], in float32."""
    return jnp.einsum("bkgts,bksh->bkgth", jnp.exp(u).astype(v.dtype), v, preferred_element_type=jnp.float32)
