"""softmax_moments: rows in, moments out."""

from __future__ import annotations

from jaxtyping import Array, Float

from ..dispatch import Implementation, Operation
from . import reference, xla
from .types import SoftmaxMoments

OPERATION = Operation(
    "softmax_moments",
    xla=Implementation(xla.softmax_moments),
    reference=Implementation(reference.softmax_moments),
)


def softmax_moments(
    logits: Float[Array, "*r V"], *, alphas: tuple[float, ...] = (), implementation: str | None = None
) -> SoftmaxMoments:
    """Entropy, varentropy, Rényi sums and the top two of softmax rows.

    Args:
      logits: any float dtype, computed in float32; −∞ marks an absent entry.
      alphas: orders of the Rényi sums to keep.
      implementation: "xla" or "reference"; None for the platform's default.

    Returns:
      SoftmaxMoments of shape [*r]; entropy within 1e-5 nats and varentropy within 1e-4 nats² of float64 for
      V up to 131,072, at any offset of the logits up to ±300.

    Raises:
      Unsupported: the implementation asked for is not to be had.
    """
    return OPERATION(logits, alphas=alphas, implementation=implementation)
