"""Result of unembed_moments, and the mergeable sums behind it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..moments import FLOOR, MASKED, Alphas, Moments, with_uniform_orders
from ..softmax_moments.types import top1_top2_gap, top_two_of_parts

Hidden = Float[Array, "G R D"]
Unembedding = Float[Array, "V D"]
Targets = Int[Array, " R"] | None  # token ids


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class UnembedMoments:
    """Moments of G groups of R rows of logits; the last group is the model's output, the others its lenses.

    Attributes:
      moments: moments of every row, without Rényi sums.
      renyi: Rényi entropies of the output rows, one per α.
      top1: most likely token of each row.
      kl: KL(output ‖ row) in nats; 0 for the output itself, ∞ for a row that lacks a token of the output (−∞ logit).
      top1_top2_gap: largest minus second largest probability of the output rows.
      self_certainty: KL(uniform ‖ p) of the output rows in nats, over the tokens that are present.
      fisher_rao: (2/π) arccos(Σ √p / √n) of the output rows, n the number of tokens that are present.
      target_logprob: ln p[target] of the output rows; None without targets.
      logits: logits of the output, float32; None unless requested.
    """

    moments: Moments
    renyi: Float[Array, "R A"]
    top1: Int[Array, "G R"]
    kl: Float[Array, "G R"]
    top1_top2_gap: Float[Array, " R"]
    self_certainty: Float[Array, " R"]
    fisher_rao: Float[Array, " R"]
    target_logprob: Float[Array, " R"] | None
    logits: Float[Array, "R V"] | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class UnembedSums:
    """Unfinished result, which every implementation returns: sums over the vocabulary, or over a part of it.

    Attributes:
      moments: moments of every row, without Rényi sums.
      r: Rényi sums of the output rows about their largest logits, an array for each of `with_uniform_orders`.
      c: Σ u of the output rows about their largest logits; None without the order 0.
      top1: index in the part of each row's largest logit, the lowest among equals.
      second: second largest logit of the output rows; `MASKED` if the part has one token.
      cross: sum of `cross_terms`, each u about its row's largest logit; 0 for the last group.
      target: logit of the output at the target; `MASKED` or less if this part lacks it; None without targets.
      logits: logits of the output; None unless requested.
    """

    moments: Moments
    r: tuple[Float[Array, " R"], ...]
    c: Float[Array, " R"] | None
    top1: Int[Array, "G R"]
    second: Float[Array, " R"]
    cross: Float[Array, "G R"]
    target: Float[Array, " R"] | None
    logits: Float[Array, "R V"] | None

    def all_gather(self, axis_name: str | tuple[str, ...], part: int, alphas: Alphas) -> UnembedSums:
        """Return the sums over vocabularies whose parts of `part` entries each are on the devices along mesh axes.

        The logits stay on their devices.
        """
        scalars = dataclasses.replace(self, logits=None)
        return dataclasses.replace(jax.lax.all_gather(scalars, axis_name).join(part, alphas), logits=self.logits)

    def followed_by(self, other: UnembedSums, part: int, alphas: Alphas) -> UnembedSums:
        """Return the sums over this part of the vocabulary, of `part` entries, and over the part after it."""
        scalars = (dataclasses.replace(sums, logits=None) for sums in (self, other))
        joined = jax.tree.map(lambda *xs: jnp.stack(xs), *scalars).join(part, alphas)
        logits = [sums.logits for sums in (self, other) if sums.logits is not None]
        return dataclasses.replace(joined, logits=jnp.concatenate(logits, axis=-1) if logits else None)

    def join(self, part: int, alphas: Alphas) -> UnembedSums:
        """Return the sums of whole rows, without logits, from their parts along the first axis, `part` entries each."""
        top1, _ = top_two_of_parts(self.moments.m, self.top1, self.moments.m, part)
        _, second = top_two_of_parts(self.moments.m[:, -1], self.top1[:, -1], self.second, part)
        output = self.output(alphas).merge_axis(0)
        moments = self.moments.merge_axis(0)
        shift = jnp.maximum(self.moments.m - moments.m, FLOOR)
        cross = jnp.sum(shift_cross(self.cross, self.moments.l[:, -1:], shift[:, -1:], shift), axis=0)
        target = None if self.target is None else jnp.max(self.target, axis=0)
        return UnembedSums(moments, output.sums_by_order, output.c, top1, second, cross, target, None)

    def output(self, alphas: Alphas) -> Moments:
        """Return the moments of the output rows, with the Rényi sums of `with_uniform_orders(alphas)`."""
        m, l, a, b = (x[..., -1, :] for x in (self.moments.m, self.moments.l, self.moments.a, self.moments.b))  # noqa: E741
        return Moments(m, l, a, b, jnp.stack(self.r, axis=-1), with_uniform_orders(alphas), self.c)

    def result(self, alphas: Alphas) -> UnembedMoments:
        """Return the finished quantities."""
        output, l = self.output(alphas), jnp.where(self.moments.l == 0, 1.0, self.moments.l)  # noqa: E741
        log_l = jnp.log(l)
        kl = self.cross[:-1] / l[-1] - log_l[-1] + log_l[:-1]
        return UnembedMoments(
            moments=self.moments,
            renyi=output.first_orders(alphas).renyi,
            top1=self.top1,
            kl=jnp.concatenate([jnp.maximum(kl, 0.0), jnp.zeros_like(self.cross[-1:])]),
            top1_top2_gap=top1_top2_gap(output, self.second),
            self_certainty=output.self_certainty,
            fisher_rao=output.fisher_rao,
            target_logprob=None
            if self.target is None
            else jnp.where(self.target <= MASKED, -jnp.inf, self.target - output.m - log_l[-1]),
            logits=self.logits,
        )


def shift_cross(cross: Any, l: Any, d: Any, d_row: Any) -> Any:  # noqa: E741
    """Return a sum of `cross_terms` about new maxima; an infinite sum stays infinite.

    Args:
      cross: sum about the old maxima.
      l: Σ e^u of the output about its old maximum.
      d: old maximum of the output minus the new one, at least `FLOOR`.
      d_row: the same of the row.
    """
    return jnp.where(cross == jnp.inf, cross, jnp.exp(d) * (cross + l * (d - d_row)))
