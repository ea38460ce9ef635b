"""prefill_attention for XLA: blocks of queries, each over the whole cache."""

import functools

import jax
import jax.numpy as jnp

from ..attention import AttentionMoments, grouped, masked, scores_of, ungrouped, visible_keys
from ..moments import MASKED, Moments, shifted

BLOCK_ENTRIES = 1 << 24  # scores of one block of queries: 64 MiB in float32
CACHE_ENTRIES = 1 << 20  # the same where they are read out, in several passes


def prefill_attention(q, k, v, start, *, scale, window, soft_cap, moments):
    start = jnp.broadcast_to(jnp.asarray(start), (q.shape[0],))
    block = functools.partial(attention_block, k=k, v=v, scale=scale, window=window, soft_cap=soft_cap, moments=moments)
    return over_query_blocks(block, q, start, k.shape[2], CACHE_ENTRIES if moments else BLOCK_ENTRIES)


def over_query_blocks(function, q, start, keys, entries):
    """Applies `function(q, start)` to blocks of queries with so many scores at most, and joins the results."""
    b, t, n, _ = q.shape
    size = max(1, entries // (b * n * keys))
    if t <= size:
        return function(q, start)
    count = -(-t // size)
    size = -(-t // count)
    blocks = jnp.pad(q, ((0, 0), (0, count * size - t), (0, 0), (0, 0)))
    blocks = jnp.moveaxis(blocks.reshape(b, count, size, n, -1), 1, 0)
    starts = start + jnp.arange(count)[:, None] * size
    result = jax.lax.map(lambda xs: function(*xs), (blocks, starts))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(b, -1, *x.shape[3:])[:, :t], result)


def block_scores(q, start, k, scale, window, soft_cap):
    """Masked scores [B, K, G, T, S] of q[B, T, N, H] at positions start[B] + t; first visible slots, and how many."""
    position = start[:, None] + jnp.arange(q.shape[1])
    mask, first, visible = visible_keys(position, k.shape[2], window)
    scores = scores_of(grouped(q, k.shape[1]), k, scale=scale, soft_cap=soft_cap)
    return masked(scores, mask[:, None, None]), first, visible


def attention_block(q, start, *, k, v, scale, window, soft_cap, moments):
    """Attention of q[B, T, N, H] at positions start[B] + t, scores of all of it held at once."""
    scores, first, visible = block_scores(q, start, k, scale, window, soft_cap)
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
