"""head_dispersion for XLA: the scores of a block of queries again, and the entropy of the heads' mean.

Within one jitted step these scores are the very expression that `prefill_attention` computes on the same block, which
XLA then shares between them.
"""

import functools

import jax.numpy as jnp

from ..moments import Moments, shifted
from ..prefill_attention.xla import CACHE_ENTRIES, block_scores, over_query_blocks


def head_dispersion(q, k, start, *, scale, window, soft_cap):
    start = jnp.broadcast_to(jnp.asarray(start), (q.shape[0],))
    block = functools.partial(_block, k=k, scale=scale, window=window, soft_cap=soft_cap)
    return over_query_blocks(block, q, start, k.shape[2], CACHE_ENTRIES)


def _block(q, start, *, k, scale, window, soft_cap):
    scores, _, _ = block_scores(q, start, k, scale, window, soft_cap)
    moments = Moments.of(scores)
    mixture = jnp.mean(jnp.exp(shifted(scores, moments.m)) * moments.p_max[..., None], axis=(1, 2))
    mixture_entropy = -jnp.sum(mixture * jnp.log(jnp.where(mixture > 0, mixture, 1.0)), axis=-1)
    return jnp.maximum(mixture_entropy - jnp.mean(moments.entropy, axis=(1, 2)), 0.0)
