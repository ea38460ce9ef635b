"""What softmax_moments returns."""

from __future__ import annotations

import dataclasses

import jax
from jaxtyping import Array, Float, Int

from ..moments import Moments


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SoftmaxMoments:
    """Moments of softmax rows and their two most likely entries.

    Attributes:
      moments: of the row.
      top1: index of the largest score, the lowest index among equals.
      top1_top2_gap: largest minus second largest probability; 1 for a row of one entry.
    """

    moments: Moments
    top1: Int[Array, "*r"]
    top1_top2_gap: Float[Array, "*r"]
