"""Reference prefill attention: every weight of every head, and the textbook formula of each quantity."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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
    group_heads,
    mask_scores,
    positions,
    ungroup_heads,
    visible_keys,
)
from ..moments import MASKED
from ..precision import einsum
from ..soft_cap import Cap
from ..softmax_moments.reference import pairwise_sum, softmax_moments


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
    """Compute prefill_attention from all weights at once."""
    mask, first = visible_keys(positions(q, start), k.shape[3], window)
    return attend(q, k, v, mask, first, scale=scale, soft_cap=soft_cap, moments=moments, logsumexp=logsumexp)


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
    """Compute attention over the keys in `mask`, given the first key that each query sees."""
    weights = attention_weights(q, k, mask, scale, soft_cap)
    out = ungroup_heads(einsum("bkgts,bksh->bkgth", weights, v.astype(jnp.float32))).astype(q.dtype)
    if not (moments or logsumexp):
        return AttentionSums(out)
    scores = attention_scores(group_heads(q, k.shape[1]), k, scale=scale, soft_cap=soft_cap)
    scores = mask_scores(scores, mask[:, None, None])
    if not moments:
        all_keys = softmax_moments(scores, alphas=(), temperature=None).moments
        return AttentionSums(out, logsumexp=ungroup_heads(all_keys.logsumexp))
    is_sink = (jnp.arange(k.shape[3]) == first[..., None])[:, None, None]
    no_sink = softmax_moments(jnp.where(is_sink, MASKED, scores), alphas=(), temperature=None).moments
    sink_score = jnp.max(jnp.where(is_sink, scores, MASKED), axis=-1)
    return AttentionSums(out, ungroup_heads(sink_score), jax.tree.map(ungroup_heads, no_sink))


def pairwise_entropy(weights: Float[Array, "*r S"]) -> Float[Array, "*r"]:
    """Return −Σ a ln a over the last axis, summed pairwise; a weight of 0 adds nothing and has no gradient."""
    return -pairwise_sum(weights * jnp.log(jnp.where(weights > 0, weights, 1.0)))


def attention_weights(q: Queries, k: Keys, mask: Mask, scale: float, soft_cap: Cap) -> Float[Array, "B K G T S"]:
    """Return the softmax weights; all zero for a query that sees no key."""
    scores = attention_scores(group_heads(q, k.shape[1]), k, scale=scale, soft_cap=soft_cap)
    mask = mask[:, None, None]
    top = jnp.max(jnp.where(mask, scores, -jnp.inf), axis=-1, keepdims=True)
    weights = jnp.where(mask, jnp.exp(scores - jnp.where(jnp.isfinite(top), top, 0.0)), 0.0)
    total = pairwise_sum(weights)[..., None]
    return weights / jnp.where(total == 0, 1.0, total)
