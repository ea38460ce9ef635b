"""cross_attention, obviously: every weight of every head."""

from ..attention import visible_groups
from ..head_dispersion.reference import divergence
from ..prefill_attention.reference import attend, attention_weights


def cross_attention(q, k, v, groups, *, scale, moments):
    mask, first = visible_groups(groups, k.shape[3])
    return attend(q, k, v, mask, first, scale=scale, soft_cap=None, moments=moments)


def cross_dispersion(q, k, groups, *, scale):
    mask, _ = visible_groups(groups, k.shape[3])
    return divergence(attention_weights(q, k, mask, scale, None))
