"""Decode attention for XLA: a block of one query per row."""

from ..attention import AttentionSums, Keys, Queries, Starts, Values, Window, decode_from_prefill, visible_keys
from ..prefill_attention.xla import attend
from ..soft_cap import Cap


@decode_from_prefill
def decode_attention(
    q: Queries,
    k: Keys,
    v: Values,
    position: Starts,
    *,
    scale: float,
    window: Window,
    soft_cap: Cap,
    moments: bool,
    logsumexp: bool,
) -> AttentionSums:
    """Compute attention of one query per row, at `position`, with all its scores at once."""
    mask, first = visible_keys(position[:, None], k.shape[3], window)
    return attend(q, k, v, mask, first, scale=scale, soft_cap=soft_cap, moments=moments, logsumexp=logsumexp)
