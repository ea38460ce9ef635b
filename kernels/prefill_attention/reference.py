"""prefill_attention, obviously: every weight of every head, and the textbook formula of each quantity."""

import jax
import jax.numpy as jnp

from ..attention import AttentionSums, grouped, masked, positions, scores_of, ungrouped, visible_keys
from ..moments import MASKED
from ..softmax_moments.reference import pairwise_sum, softmax_moments


def prefill_attention(q, k, v, start, *, scale, window, soft_cap, moments):
    mask, first = visible_keys(positions(q, start), k.shape[3], window)
    return attend(q, k, v, mask, first, scale=scale, soft_cap=soft_cap, moments=moments)


def attend(q, k, v, mask, first, *, scale, soft_cap, moments):
    """Attention over the keys in `mask` [B, T, S], given the first key that each query sees [B, T]."""
    weights = attention_weights(q, k, mask, scale, soft_cap)
    out = ungrouped(jnp.einsum("bkgts,bksh->bkgth", weights, v.astype(jnp.float32))).astype(q.dtype)
    if not moments:
        return AttentionSums(out, None, None)
    scores = masked(scores_of(grouped(q, k.shape[1]), k, scale=scale, soft_cap=soft_cap), mask[:, None, None])
    is_sink = (jnp.arange(k.shape[3]) == first[..., None])[:, None, None]
    rest = softmax_moments(jnp.where(is_sink, MASKED, scores), alphas=(), temperature=None).moments
    sink = jnp.max(jnp.where(is_sink, scores, MASKED), axis=-1)
    return AttentionSums(out, ungrouped(sink), jax.tree.map(ungrouped, rest))


def entropy_of(weights):
    """−Σ a ln a over the last axis; a weight of 0 adds nothing, and has no gradient."""
    return -pairwise_sum(weights * jnp.log(jnp.where(weights > 0, weights, 1.0)))


def attention_weights(q, k, mask, scale, soft_cap):
    """Softmax weights [B, K, G, T, S]; all zero where nothing is visible."""
    scores = scores_of(grouped(q, k.shape[1]), k, scale=scale, soft_cap=soft_cap)
    mask = mask[:, None, None]
    top = jnp.max(jnp.where(mask, scores, -jnp.inf), axis=-1, keepdims=True)
    weights = jnp.where(mask, jnp.exp(scores - jnp.where(jnp.isfinite(top), top, 0.0)), 0.0)
    total = pairwise_sum(weights)[..., None]
    return weights / jnp.where(total == 0, 1.0, total)
