"""prefill_attention, obviously: every weight of every head, and the textbook formula of each quantity."""

import jax.numpy as jnp

from ..attention import AttentionMoments, grouped, positions, scores_of, ungrouped, visible_keys
from ..softmax_moments.reference import pairwise_sum


def prefill_attention(q, k, v, start, *, scale, window, soft_cap, moments):
    visible = visible_keys(positions(q, start), k.shape[2], window)
    return attend(q, k, v, *visible, scale=scale, soft_cap=soft_cap, moments=moments)


def attend(q, k, v, mask, first, visible, *, scale, soft_cap, moments):
    """Attention over the keys in `mask` [B, T, S], given the first key each query sees and how many [B, T]."""
    weights = attention_weights(q, k, mask, scale, soft_cap)
    out = jnp.einsum("bkgts,bksh->bkgth", weights, v.astype(jnp.float32))
    out = ungrouped(out).astype(q.dtype)
    if not moments:
        return out, None
    is_sink = (jnp.arange(k.shape[2]) == first[..., None])[:, None, None]
    sink_mass = pairwise_sum(jnp.where(is_sink, weights, 0.0))
    rest = jnp.where(is_sink, 0.0, weights)
    rest_sum = pairwise_sum(rest)[..., None]
    rest = rest / jnp.where(rest_sum > 0, rest_sum, 1.0)
    entropy = entropy_of(weights)
    surprise = jnp.log(jnp.where(weights > 0, weights, 1.0)) + entropy[..., None]
    count = visible[:, None, None]
    statistics = AttentionMoments(
        entropy=entropy,
        entropy_normalized=jnp.where(count > 1, entropy / jnp.log(jnp.maximum(count, 2)), 0.0),
        varentropy=pairwise_sum(weights * surprise**2),
        entropy_no_sink=entropy_of(rest),
        sink_mass=sink_mass,
    )
    return out, AttentionMoments(**{name: ungrouped(x) for name, x in vars(statistics).items()})


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
