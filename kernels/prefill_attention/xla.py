"""prefill_attention for XLA: blocks of queries, each over the whole cache."""

import jax
import jax.numpy as jnp

from ..attention import AttentionMoments, grouped, masked, positions, scores_of, ungrouped, visible_keys
from ..moments import MASKED, Moments, shifted

BLOCK_ENTRIES = 1 << 24  # scores of one block of queries: 64 MiB in float32
CACHE_ENTRIES = 1 << 20  # the same where they are read out, in several passes


def prefill_attention(q, k, v, start, *, scale, window, soft_cap, moments):
    def block(q, position):
        visible = visible_keys(position, k.shape[2], window)
        return attend(q, k, v, *visible, scale=scale, soft_cap=soft_cap, moments=moments)

    return over_query_blocks(block, q, positions(q, start), k.shape[2], moments=moments)


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
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(b, -1, *x.shape[3:])[:, :t], result)


def block_scores(q, k, mask, scale, soft_cap):
    """Scores [B, K, G, T, S] of q[B, T, N, H], those outside `mask` [B, T, S] marked absent."""
    return masked(scores_of(grouped(q, k.shape[1]), k, scale=scale, soft_cap=soft_cap), mask[:, None, None])


def attend(q, k, v, mask, first, visible, *, scale, soft_cap, moments):
    """Attention of q[B, T, N, H] over the keys in `mask`, scores of all of it held at once.

    `first` and `visible` [B, T] are the first key each query sees, and how many.
    """
    scores = block_scores(q, k, mask, scale, soft_cap)
    whole = Moments.of(scores)
    weights = jnp.exp(shifted(scores, whole.m))
    out = jnp.einsum("bkgts,bksh->bkgth", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    out = ungrouped(out * whole.p_max[..., None]).astype(q.dtype)
    if not moments:
        return out, None
    is_first = (jnp.arange(k.shape[2]) == first[..., None])[:, None, None]
    sink_score = jnp.max(jnp.where(is_first, scores, MASKED), axis=-1)
    rest = Moments.of(scores, where=~is_first)
    statistics = AttentionMoments.of(whole, sink_score, rest, visible[:, None, None])
    return out, jax.tree.map(ungrouped, statistics)
