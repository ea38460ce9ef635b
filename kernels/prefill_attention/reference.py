"""Reference prefill attention: every weight of every head, and the textbook formula of each quantity."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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
    prompt_length: Starts | None,
) -> AttentionSums:
    """Compute prefill_attention from all weights at once."""
    position = positions(q, start)
    mask = visible_keys(position, k.shape[3], window)
    options: dict[str, Any] = {"scale": scale, "soft_cap": soft_cap, "moments": moments, "logsumexp": logsumexp}
    return attend(q, k, v, mask, position, prompt_length=prompt_length, **options)


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
    """Compute attention over the keys in `mask`, given each query's position; None for keys without positions."""
    weights = attention_weights(q, k, mask, scale, soft_cap)
    out = ungroup_heads(einsum("bkgts,bksh->bkgth", weights, v.astype(jnp.float32))).astype(q.dtype)
    if not (moments or logsumexp):
        return AttentionSums(out)
    scores = attention_scores(group_heads(q, k.shape[1]), k, scale=scale, soft_cap=soft_cap)
    scores = mask_scores(scores, mask[:, None, None])
    if not moments:
        all_keys = softmax_moments(scores, alphas=(), temperature=None).moments
        return AttentionSums(out, logsumexp=ungroup_heads(all_keys.logsumexp))
    slots = jnp.arange(k.shape[3])
    no_sink = scores if position is None else jnp.where(slots == 0, MASKED, scores)
    no_sink = jax.tree.map(ungroup_heads, softmax_moments(no_sink, alphas=(), temperature=None).moments)
    if position is None:
        return AttentionSums(out, no_sink)

    def score_of(slot: PerQuery | Array) -> Float[Array, "B T N"]:
        is_key = (slots == slot[..., None])[:, None, None]
        return ungroup_heads(jnp.max(jnp.where(is_key, scores, MASKED), axis=-1))

    prompt_mass = None
    if prompt_length is not None:
        in_prompt = (slots < prompt_length[:, None])[:, None, None, None]
        prompt_mass = ungroup_heads(pairwise_sum(jnp.where(in_prompt, weights, 0.0)))
    single = PositionSums(score_of(jnp.zeros_like(position)), score_of(position), score_of(position - 1), prompt_mass)
    return AttentionSums(out, no_sink, single)


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
