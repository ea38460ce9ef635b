"""head_dispersion for XLA: the scores of a block of queries again, and the entropy of the heads' mean.

Within one jitted step these scores are the very expression that `prefill_attention` computes on the same block, which
XLA then shares between them.
"""

import jax
import jax.numpy as jnp

from ..attention import positions, visible_keys
from ..moments import Moments, shifted
from ..prefill_attention.xla import block_scores, over_query_blocks


def head_dispersion(q, k, start, *, scale, window, soft_cap, axis_name=None):
    def block(q, position):
        mask, _ = visible_keys(position, k.shape[3], window)
        return divergence(block_scores(q, k, mask, scale, soft_cap), axis_name)

    return over_query_blocks(block, q, positions(q, start), k.shape[3], moments=True)


def divergence(scores, axis_name=None):
    """Jensen–Shannon divergence [B, T] over the heads of masked scores [B, K, G, T, S], and of those along an axis."""
    moments = Moments.of(scores)
    weights = jnp.exp(shifted(scores, moments.m)) * moments.p_max[..., None]
    mixture, entropy = jnp.mean(weights, axis=(1, 2)), jnp.mean(moments.entropy, axis=(1, 2))
    if axis_name is not None:
        mixture, entropy = jax.lax.pmean((mixture, entropy), axis_name)
    mixture_entropy = -jnp.sum(mixture * jnp.log(jnp.where(mixture > 0, mixture, 1.0)), axis=-1)
    return jnp.maximum(mixture_entropy - entropy, 0.0)
