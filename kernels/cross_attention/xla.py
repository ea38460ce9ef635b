"""cross_attention for XLA: blocks of queries, each over all keys."""

from ..attention import visible_groups
from ..head_dispersion.xla import divergence
from ..prefill_attention.xla import attend, block_scores, over_query_blocks


def cross_attention(q, k, v, groups, *, scale, moments):
    def block(q, groups):
        mask, first = visible_groups(groups, k.shape[3])
        return attend(q, k, v, mask, first, scale=scale, soft_cap=None, moments=moments)

    return over_query_blocks(block, q, groups, k.shape[3])


def cross_dispersion(q, k, groups, *, scale, axis_name=None):
    def block(q, groups):
        mask, _ = visible_groups(groups, k.shape[3])
        return divergence(block_scores(q, k, mask, scale, None), axis_name)

    return over_query_blocks(block, q, groups, k.shape[3])
