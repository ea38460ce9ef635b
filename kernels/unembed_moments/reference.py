"""Reference unembed_moments: all logits at once, and one pass for each quantity."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..moments import MASKED, Alphas, cross_terms
from ..precision import einsum
from ..soft_cap import Cap, soft_capped
from ..softmax_moments.reference import pairwise_sum, softmax_moments
from .types import Hidden, Targets, Unembedding, UnembedSums


def unembed_moments(
    hidden: Hidden, unembedding: Unembedding, *, alphas: Alphas, soft_cap: Cap, targets: Targets, keep_logits: bool
) -> UnembedSums:
    """Compute unembed_moments from all logits at once."""
    logits = einsum("grd,vd->grv", hidden, unembedding, jnp.float32)
    logits = soft_capped(logits, soft_cap)
    rows = softmax_moments(logits, alphas=(), temperature=None)
    output = softmax_moments(logits[-1], alphas=alphas, temperature=None)
    u, absent = logits - rows.moments.m[..., None], logits <= MASKED
    return UnembedSums(
        moments=rows.moments,
        r=output.moments.sums_by_order,
        c=output.moments.c,
        top1=rows.top1,
        second=rows.second[-1],
        cross=pairwise_sum(cross_terms(jnp.exp(u[-1]), u[-1], u, absent[-1], absent)),
        target=None if targets is None else target_logits(logits[-1], targets),
        logits=logits[-1] if keep_logits else None,
    )


def target_logits(logits: Float[Array, "R V"], targets: Int[Array, " R"]) -> Float[Array, " R"]:
    """Return the logit of each row's target, `MASKED` for a target outside the vocabulary."""
    inside = (targets >= 0) & (targets < logits.shape[-1])
    values = jnp.take_along_axis(logits, jnp.where(inside, targets, 0)[:, None], axis=-1)[:, 0]
    return jnp.where(inside, values, MASKED)
