"""decode_attention for XLA: a block of one query per row."""

import jax

from ..prefill_attention.xla import attention_block


def decode_attention(q, k, v, lengths, *, scale, window, soft_cap, moments):
    out, statistics = attention_block(
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
