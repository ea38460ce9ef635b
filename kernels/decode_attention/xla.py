"""Decode attention for XLA: a block of one query per row."""

from typing import Any

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
    prompt_length: Starts | None,
) -> AttentionSums:
    """Compute attention of one query per row, at `position`, with all its scores at once."""
    mask = visible_keys(position[:, None], k.shape[3], window)
    options: dict[str, Any] = {"scale": scale, "soft_cap": soft_cap, "moments": moments, "logsumexp": logsumexp}
    return attend(q, k, v, mask, position[:, None], prompt_length=prompt_length, **options)
