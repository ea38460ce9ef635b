"""head_dispersion for XLA: the scores of a block of queries again, and the entropy of the heads' mean.

Within one jitted step these scores are the very expression that `prefill_attention` computes on the same block, which
XLA then shares between them.
"""

import jax
import jax.numpy as jnp

from .. import key_tiles
from ..attention import first_visible, grouped, positions, visible_keys
from ..key_tiles import over_key_tiles
from ..moments import Moments, shifted
from ..prefill_attention.xla import block_scores, over_query_blocks


def head_dispersion(q, k, start, *, scale, window, soft_cap, axis_name=None):
    keys = k.shape[3]

    def block(q, position):
        mask, _ = visible_keys(position, keys, window)
        return divergence(block_scores(q, k, mask, scale, soft_cap), axis_name)

    def block_of_tiles(q, position):
        return divergence_of_tiles(q, k, position, first_visible(position, window), scale, soft_cap, axis_name)

    tiled = key_tiles.in_tiles(q.shape[1], keys)
    of_block, held = (block_of_tiles, key_tiles.TILE) if tiled else (block, keys)
    return over_query_blocks(of_block, q, positions(q, start), held)


def divergence(scores, axis_name=None):
    """Jensen–Shannon divergence [B, T] over the heads of masked scores [B, K, G, T, S], and of those along an axis."""
    moments = Moments.of(scores)
    mixture_entropy = entropy_of_mean(scores, moments, axis_name)
    return jnp.maximum(mixture_entropy - mean_over_heads(moments.entropy, axis_name), 0.0)


def divergence_of_tiles(q, k, position, first, scale, soft_cap, axis_name):
    """The same of queries [B, T, N, H] over a long cache, in two passes: the heads' moments, then their mean."""
    moments = Moments.empty(grouped(q, k.shape[1]).shape[:-1])
    along = position, first, k.shape[3]

    def scores(cut, mask):
        return block_scores(q, cut(k, 3), mask, scale, soft_cap)

    moments = over_key_tiles(
        lambda moments, cut, mask, _: moments.merge(Moments.of(scores(cut, mask))), moments, *along
    )
    mixture_entropy = over_key_tiles(
        lambda total, cut, mask, _: total + entropy_of_mean(scores(cut, mask), moments, axis_name),
        jnp.zeros(position.shape),
        *along,
    )
    return jnp.maximum(mixture_entropy - mean_over_heads(moments.entropy, axis_name), 0.0)


def entropy_of_mean(scores, moments, axis_name):
    """Σ −m ln m [B, T] over some keys, m the mean over heads of the weights that `moments` normalise.

    The mean is a product of e^u with 1 / (heads · l): as a reduction over the heads it takes XLA's CPU backend five
    times as long (32 heads, 64 queries of 512 keys: 5.2 ms against 0.9).
    """
    shares = moments.p_max / (scores.shape[1] * scores.shape[2])
    weights = jnp.exp(shifted(scores, moments.m))
    mixture = jnp.einsum("bkgt,bkgts->bts", shares, weights, precision=jax.lax.Precision.HIGHEST)
    mixture = mixture if axis_name is None else jax.lax.pmean(mixture, axis_name)
    return -jnp.sum(mixture * jnp.log(jnp.where(mixture > 0, mixture, 1.0)), axis=-1)


def mean_over_heads(x, axis_name):
    """The mean over the heads [B, K, G, …] of this device, and of those along an axis."""
    mean = jnp.mean(x, axis=(1, 2))
    return mean if axis_name is None else jax.lax.pmean(mean, axis_name)
