"""Result of softmax_moments, and the mergeable sums behind it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..moments import FLOOR, Alphas, Moments


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SoftmaxMoments:
    """Moments of softmax rows and their two most likely entries.

    Attributes:
      moments: moments of the row.
      top1: index of the largest score, the lowest index among equals.
      top1_top2_gap: largest minus second largest probability; 1 for a row of one entry.
      self_certainty: KL(uniform ‖ p) in nats, over the entries that are present.
      fisher_rao: (2/π) arccos(Σ √p / √n), n the number of entries that are present.
    """

    moments: Moments
    top1: Int[Array, "*r"]
    top1_top2_gap: Float[Array, "*r"]
    self_certainty: Float[Array, "*r"]
    fisher_rao: Float[Array, "*r"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SoftmaxSums:
    """Unfinished result, which every implementation of softmax_moments returns: sums over a row, or a part of it.

    Attributes:
      moments: moments of the part, Rényi sums of `with_uniform_orders` included.
      top1: index in the part of its largest score, the lowest among equals.
      second: second largest score of the part, which may equal the largest; `MASKED` if the part has one entry.
    """

    moments: Moments
    top1: Int[Array, " R"]
    second: Float[Array, " R"]

    def all_gather(self, axis_name: str | tuple[str, ...], part: int) -> SoftmaxSums:
        """Return the sums of whole rows whose parts of `part` entries each are on the devices along mesh axes."""
        return jax.lax.all_gather(self, axis_name).join(part)

    def join(self, part: int) -> SoftmaxSums:
        """Return the sums of whole rows from the sums of their parts along the first axis, `part` entries each."""
        top1, second = top_two_of_parts(self.moments.m, self.top1, self.second, part)
        return SoftmaxSums(self.moments.merge_axis(0), top1, second)

    def result(self, alphas: Alphas) -> SoftmaxMoments:
        """Return the finished quantities, with the Rényi sums of the requested orders, which are the first ones."""
        moments = self.moments
        return SoftmaxMoments(
            moments=moments.first_orders(alphas),
            top1=self.top1,
            top1_top2_gap=top1_top2_gap(moments, self.second),
            self_certainty=moments.self_certainty,
            fisher_rao=moments.fisher_rao,
        )


def top_two_of_parts(
    largest: Float[Array, "P ..."], top1: Int[Array, "P ..."], second: Float[Array, "P ..."], part: int
) -> tuple[Int[Array, "*r"], Float[Array, "*r"]]:
    """Return (index of the largest score, second largest score) of rows cut in P parts of `part` entries."""
    best = jnp.argmax(largest, axis=0)[None]
    index = jnp.take_along_axis(top1, best, axis=0)[0] + best[0] * part
    is_best = jnp.arange(len(largest)).reshape(-1, *(1,) * (largest.ndim - 1)) == best
    return index.astype(jnp.int32), jnp.max(jnp.where(is_best, second, largest), axis=0)


def top1_top2_gap(moments: Moments, second: Float[Array, "*r"]) -> Float[Array, "*r"]:
    """Return p₁ − p₂ of each row, from its second largest score."""
    return moments.p_max * (1 - jnp.exp(jnp.maximum(second - moments.m, FLOOR)))
