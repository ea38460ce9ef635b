"""Decode attention: one query per row over its cache, with the moments of its weights."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..attention import AttentionMoments, Window, check_capacity, check_shapes, int_per_row, visible_count
from ..dispatch import Operation
from . import gpu, reference, tpu, xla

OPERATION = Operation.from_modules("decode_attention", tpu=tpu, gpu=gpu, xla=xla, reference=reference)


def decode_attention(
    q: Float[Array, "B N H"],
    k: Float[Array, "B K H S"],
    v: Float[Array, "B K S H"],
    lengths: Int[Array, " B"],
    *,
    scale: float,
    window: Window = None,
    soft_cap: float | None = None,
    learned_sink: Float[Array, " N"] | None = None,
    prompt_length: Int[Array, ""] | Int[Array, " B"] | int | None = None,
    moments: bool = True,
    implementation: str | None = None,
) -> tuple[Float[Array, "B N H"], AttentionMoments | None]:
    """Compute attention of one query per row over the first `lengths` slots of its cache.

    Other arguments, and errors, are as for `prefill_attention`.

    Args:
      q: queries; N is a multiple of K.
      k: cached keys, slots last, the query's own key included. Slots past a row's length may hold any finite value.
      v: cached values, the query's own value included.
      lengths: number of filled slots of each row; 0 gives zeros. Lengths beyond S are refused unless they are traced,
        and so unknown.

    Returns:
      (output in q's dtype, AttentionMoments [B, N] or None), with the error bounds of `prefill_attention`.
    """
    lengths, prompt_length = jnp.asarray(lengths), int_per_row(prompt_length, len(q))
    check_shapes("decode_attention", q[:, None], k, v, lengths, window, learned_sink, prompt_length)
    check_capacity("decode_attention", lengths, k.shape[3])
    sums = OPERATION(
        q,
        k,
        v,
        lengths,
        scale=scale,
        window=window,
        soft_cap=soft_cap,
        moments=moments,
        logsumexp=learned_sink is not None and not moments,
        prompt_length=prompt_length if moments else None,
        implementation=implementation,
    )
    return sums.result(visible_count(lengths - 1, window)[:, None], learned_sink)
