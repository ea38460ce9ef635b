"""decode_attention for XLA: a block of one query per row."""

from ..attention import one_query, visible_keys
from ..prefill_attention.xla import attend


@one_query
def decode_attention(q, k, v, position, *, scale, window, soft_cap, moments):
    mask, first = visible_keys(position[:, None], k.shape[3], window)
    return attend(q, k, v, mask, first, scale=scale, soft_cap=soft_cap, moments=moments)
