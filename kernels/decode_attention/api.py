"""decode_attention: one query per row over its cache, with the moments of its weights."""

from __future__ import annotations

from jaxtyping import Array, Float, Int

from ..attention import AttentionMoments
from ..dispatch import Implementation, Operation
from . import reference, xla

OPERATION = Operation(
    "decode_attention",
    xla=Implementation(xla.decode_attention),
    reference=Implementation(reference.decode_attention),
)


def decode_attention(
    q: Float[Array, "B N H"],
    k: Float[Array, "B K S H"],
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
      k, v: the cache, the query's own key and value included.
      lengths: how many slots each row has filled; 0 gives zeros.
      scale: factor on the scores.
      window: how many keys a query sees, itself included; None for all.
      soft_cap: scores become cap · tanh(scores / cap).
      moments: whether to return the moments of the weights.
      implementation: "xla" or "reference"; None for the platform's default.

    Returns:
      (output in q's dtype, AttentionMoments [B, N] or None), with the bounds of `prefill_attention`.

    Raises:
      Unsupported: the implementation asked for is not to be had.
    """
    return OPERATION(
        q, k, v, lengths, scale=scale, window=window, soft_cap=soft_cap, moments=moments, implementation=implementation
    )
