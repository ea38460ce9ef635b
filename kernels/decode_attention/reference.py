"""decode_attention, obviously: prefill_attention's reference with one query per row."""

import jax

from ..prefill_attention.reference import prefill_attention


def decode_attention(q, k, v, lengths, *, scale, window, soft_cap, moments):
    out, statistics = prefill_attention(
        q=q[:, None],
        start=lengths - 1,
        k=k,
        v=v,
        scale=scale,
        window=window,
        soft_cap=soft_cap,
        moments=moments,
    )
    return out[:, 0], jax.tree.map(lambda x: x[:, 0], statistics)
