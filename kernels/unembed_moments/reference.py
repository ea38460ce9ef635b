"""unembed_moments, obviously: all logits at once, and one pass for each quantity."""

import jax.numpy as jnp

from ..moments import MASKED
from ..soft_cap import soft_capped
from ..softmax_moments.reference import pairwise_sum, softmax_moments
from .types import UnembedSums


def unembed_moments(hidden, unembedding, *, alphas, soft_cap, targets, keep_logits):
    logits = jnp.einsum("grd,vd->grv", hidden, unembedding, preferred_element_type=jnp.float32)
    logits = soft_capped(logits, soft_cap)
    rows = softmax_moments(logits, alphas=(), temperature=None)
    output = softmax_moments(logits[-1], alphas=alphas, temperature=None)
    u = logits - rows.moments.m[..., None]
    return UnembedSums(
        moments=rows.moments,
        r=output.moments.r,
        top1=rows.top1,
        second=rows.second[-1],
        cross=pairwise_sum(jnp.exp(u[-1]) * (u[-1] - u)),
        target=None if targets is None else target_of(logits[-1], targets),
        logits=logits[-1] if keep_logits else None,
    )


def target_of(logits, targets):
    """Logit [R] of each row's target, `MASKED` for one outside the vocabulary."""
    there = (targets >= 0) & (targets < logits.shape[-1])
    found = jnp.take_along_axis(logits, jnp.where(there, targets, 0)[:, None], axis=-1)[:, 0]
    return jnp.where(there, found, MASKED)
