"""unembed_moments, obviously: all logits at once, and the textbook formula of each quantity."""

import jax
import jax.numpy as jnp

from ..soft_cap import soft_capped
from ..softmax_moments.reference import softmax_moments
from .types import UnembedMoments


def unembed_moments(hidden, unembedding, *, alphas, soft_cap, targets, keep_logits):
    logits = jnp.einsum("grd,vd->grv", hidden, unembedding, preferred_element_type=jnp.float32)
    logits = soft_capped(logits, soft_cap)
    rows = softmax_moments(logits, alphas=())
    log_p = jax.nn.log_softmax(logits, axis=-1)
    output = log_p[-1]
    kl = jnp.sum(jnp.exp(output) * (output - log_p), axis=-1)
    return UnembedMoments(
        moments=rows.moments,
        renyi=softmax_moments(logits[-1], alphas=alphas).moments.renyi,
        top1=rows.top1,
        kl=kl,
        top1_top2_gap=rows.top1_top2_gap[-1],
        target_logprob=None if targets is None else jnp.take_along_axis(output, targets[:, None], axis=-1)[:, 0],
        logits=logits[-1] if keep_logits else None,
    )
