"""decode_attention: one query per row over its cache, with the moments of its weights."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..attention import AttentionMoments, check_shapes, check_within, visible_count
from ..dispatch import Operation
from . import gpu, reference, tpu, xla

OPERATION = Operation.of_modules("decode_attention", tpu=tpu, gpu=gpu, xla=xla, reference=reference)


def decode_attention(
    q: Float[Array, "B N H"],
    k: Float[Array, "B K H S"],
    v: Float[Array, "B K S H"],
    lengths: Int[Array, " B"],
    *,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    moments: bool = True,
    implementation: str | None = None,
) -> tuple[Float[Array, "B N H"], AttentionMoments | None]:
    """Attention of one query per row over the first `lengths` slots of its cache.

    Args:
      q: queries; N is a multiple of K.
      k, v: the cache, the query's own key and value included. Keys have their slots last. Slots past a row's length
        may hold anything finite.
      lengths: how many slots each row has filled; 0 gives zeros. Lengths beyond S cannot be told from here under a
        trace: concrete ones are refused.
      scale: factor on the scores.
      window: how many keys a query sees, itself included; None for all.
      soft_cap: scores become cap · tanh(scores / cap).
      moments: whether to return the moments of the weights.
      implementation: its name; None for the platform's default.

    Returns:
      (output in q's dtype, AttentionMoments [B, N] or None), with the bounds of `prefill_attention`.

    Raises:
      Unsupported: the implementation asked for is not to be had.
      ValueError: shapes do not agree, or a length is beyond the cache.
    """
    lengths = jnp.asarray(lengths)
    check_shapes("decode_attention", q[:, None], k, v, lengths, window)
    check_within("decode_attention", lengths, k.shape[3])
    sums = OPERATION(
        q, k, v, lengths, scale=scale, window=window, soft_cap=soft_cap, moments=moments, implementation=implementation
    )
    return sums.result(visible_count(lengths - 1, window)[:, None])
