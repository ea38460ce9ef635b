"""What unembed_moments returns."""

from __future__ import annotations

import dataclasses

import jax
from jaxtyping import Array, Float, Int

from ..moments import Moments


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class UnembedMoments:
    """Moments of G groups of R rows of logits; the last group is the model's output, the others its lenses.

    Attributes:
      moments: of every row, without Rényi sums.
      renyi: Rényi entropies of the output rows, one per α.
      top1: each row's most likely token.
      kl: KL(output ‖ row) in nats; 0 for the output itself.
      top1_top2_gap: of the output rows.
      target_logprob: ln p[target] of the output rows; None without targets.
      logits: the output's logits, float32; None unless asked for.
    """

    moments: Moments
    renyi: Float[Array, "R A"]
    top1: Int[Array, "G R"]
    kl: Float[Array, "G R"]
    top1_top2_gap: Float[Array, " R"]
    target_logprob: Float[Array, " R"] | None
    logits: Float[Array, "R V"] | None
