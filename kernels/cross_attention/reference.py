"""cross_attention, obviously: every weight of every head."""

from ..attention import visible_groups
from ..head_dispersion.reference import divergence
from ..prefill_attention.reference import attend, attention_weights


def cross_attention(q, k, v, groups, *, scale, moments):
    return attend(q, k, v, *visible_groups(groups, k.shape[2]), scale=scale, soft_cap=None, moments=moments)


def cross_dispersion(q, k, groups, *, scale):
    mask, _, _ = visible_groups(groups, k.shape[2])
    return divergence(attention_weights(q, k, mask, scale, None))
