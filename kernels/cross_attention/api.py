"""Cross-attention: queries of a text over the keys of its images, with the moments of every query's weights."""

from __future__ import annotations

from jaxtyping import Array, Bool, Float

from ..attention import AttentionMoments, check_shapes, require_xla
from ..dispatch import Implementation, Operation
from . import reference, xla

ATTENTION, DISPERSION = (
    Operation(name, xla=Implementation(getattr(xla, name)), reference=Implementation(getattr(reference, name)))
    for name in ("cross_attention", "cross_dispersion")
)


def cross_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K H S"],
    v: Float[Array, "B K S H"],
    groups: Bool[Array, "B T M"],
    *,
    scale: float,
    moments: bool = True,
    implementation: str | None = None,
) -> tuple[Float[Array, "B T N H"], AttentionMoments | None]:
    """Compute attention of T queries over groups of keys: the tiles of images.

    Other arguments, and errors, are as for `prefill_attention`.

    Args:
      q: queries; N is a multiple of K.
      k: keys, slots last, in M consecutive groups of S/M.
      v: values, in the same groups.
      groups: groups that each query sees.
      moments: whether to return the moments of the weights. Their keys have no positions, so `entropy_no_sink` is
        `entropy`, and quantities of single positions are NaN.

    Returns:
      (output in q's dtype, AttentionMoments [B, T, N] or None); zeros for a query that sees no key. Error bounds are
      the ones of `prefill_attention`.
    """
    _check("cross_attention", q, k, v, groups)
    sums = ATTENTION(q, k, v, groups, scale=scale, moments=moments, implementation=implementation)
    return sums.result((groups.sum(axis=-1) * (k.shape[3] // groups.shape[-1]))[..., None])


def cross_dispersion(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K H S"],
    groups: Bool[Array, "B T M"],
    *,
    scale: float,
    axis_name: str | tuple[str, ...] | None = None,
    implementation: str | None = None,
) -> Float[Array, "B T"]:
    """Compute `head_dispersion` of the weights of `cross_attention`, whose arguments and errors it shares."""
    _check("cross_dispersion", q, k, None, groups)
    if axis_name is not None:
        require_xla("cross_dispersion", implementation)
        return xla.cross_dispersion(q, k, groups, scale=scale, axis_name=axis_name)
    return DISPERSION(q, k, groups, scale=scale, implementation=implementation)


def _check(name: str, q: Array, k: Array, v: Array | None, groups: Array) -> None:
    check_shapes(name, q, k, v)
    if groups.ndim != 3 or groups.shape[:2] != q.shape[:2] or not groups.shape[2] or k.shape[3] % groups.shape[2]:
        raise ValueError(
            f"{name}: groups {groups.shape} do not fit queries {q.shape} and {k.shape[3]} keys; "
            "give [B, T, M], with M a divisor of the keys"
        )
