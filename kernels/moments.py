"""Moment algebra: entropy, varentropy and related quantities of a softmax, from a few mergeable sums.

For scores s with m = max s and u = s − m the sums l = Σ eᵘ, a = Σ eᵘu, b = Σ eᵘu² and r_α = Σ e^{αu} give entropy,
varentropy, log-sum-exp, the largest probability and the Rényi entropies. With c = Σ u and the number of entries r_0
they also give the divergence from the uniform distribution and, with r_½, the angle to it. Partial results over any
split of the row merge exactly; raw scores never enter the sums, so a constant added to all scores changes nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Scores at or below MASKED are absent; shifts are cut at FLOOR, where e^u is 0 in float32 and u² is finite.
MASKED = -1e30
FLOOR = -1e4

# A single row is summed in blocks that are merged. Otherwise XLA's CPU backend adds it up entry by entry, which at
# 131,072 entries costs 7e-4 nats² of varentropy (8e-6 with two rows or more).
BLOCK = 1024

Alphas = tuple[float, ...]  # orders of Rényi entropies


def with_uniform_orders(alphas: Alphas) -> Alphas:
    """Return the orders, then those of 0 and ½ that they lack, which `self_certainty` and `fisher_rao` need."""
    return (*alphas, *(order for order in (0.0, 0.5) if order not in alphas))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Moments of softmax rows, a commutative monoid under `merge` with `Moments.empty` as its neutral element.

    Attributes:
      m: largest score; `MASKED` for an empty row.
      l: Σ e^u.
      a: Σ e^u u.
      b: Σ e^u u².
      r: Rényi sums Σ e^{αu}, one per α (last axis).
      alphas: orders α of the Rényi sums, static.
      c: Σ u; None unless 0 is among the orders.
    """

    m: Float[Array, "*r"]
    l: Float[Array, "*r"]  # noqa: E741 (its name in the definition)
    a: Float[Array, "*r"]
    b: Float[Array, "*r"]
    r: Float[Array, "*r A"]
    alphas: Alphas = dataclasses.field(default=(), metadata={"static": True})
    c: Float[Array, "*r"] | None = None

    @classmethod
    def empty(cls, shape: Sequence[int], alphas: Alphas = ()) -> Moments:
        """Return the moments of rows with no entry."""
        zero = jnp.zeros(shape, jnp.float32)
        c = zero if 0 in alphas else None
        return cls(jnp.full(shape, MASKED), zero, zero, zero, jnp.zeros((*shape, len(alphas))), alphas, c)

    @classmethod
    def of(
        cls,
        scores: Float[Array, "*r V"],
        where: Bool[Array, "*#r V"] | None = None,
        alphas: Alphas = (),
        largest: Float[Array, "*r"] | None = None,
    ) -> Moments:
        """Return the moments over the last axis, in float32.

        Args:
          scores: scores of any float dtype; entries at −∞ (or ≤ −1e30) are absent.
          where: mask of the entries to count; None counts all.
          alphas: orders of the Rényi sums to keep. α = 0 counts the entries; 1 and ∞ need no extra sum.
          largest: largest score of each row, if already known.

        Returns:
          Moments of shape [*r]. A row with a NaN or +∞ is NaN; a row with no entry is empty.
        """
        scores = scores.astype(jnp.float32)
        if where is not None:
            scores = jnp.where(where, scores, MASKED)
        # Two dimensions, because XLA's CPU backend is up to five times slower over the same rows in more.
        flat = scores.reshape(-1, scores.shape[-1])
        blocks = -(-flat.shape[-1] // BLOCK)
        if len(flat) == 1 and blocks > 1:
            pad = -flat.shape[-1] % blocks
            parts = jnp.pad(flat, ((0, 0), (0, pad)), constant_values=MASKED).reshape(blocks, -1)
            moments = cls._sum_rows(parts, alphas, jnp.max(parts, axis=-1)).merge_axis(0, keepdims=True)
        else:
            moments = cls._sum_rows(flat, alphas, jnp.max(flat, axis=-1) if largest is None else largest.reshape(-1))
        return jax.tree.map(lambda x: x.reshape(*scores.shape[:-1], *x.shape[1:]), moments)

    @classmethod
    def _sum_rows(cls, scores: Float[Array, "R V"], alphas: Alphas, largest: Float[Array, " R"]) -> Moments:
        m = jnp.maximum(largest, MASKED)
        u = shifted(scores, m)
        e = jnp.exp(u)
        # Each sum has its own exponential: XLA's CPU backend would keep a shared one in memory, which costs more.
        sums = [
            jnp.sum(scores > MASKED, axis=-1, dtype=jnp.float32)
            if alpha == 0
            else jnp.sum(jnp.exp(_exponent(alpha) * u), axis=-1)
            for alpha in alphas
        ]
        l = jnp.sum(e, axis=-1)  # noqa: E741
        has_entry = (m > MASKED) | jnp.isnan(l)  # a backend's maximum may ignore NaN, a sum does not
        sums = [jnp.where(has_entry, x, 0.0) for x in sums]
        return cls(
            m=m,
            l=jnp.where(has_entry, l, 0.0),
            a=jnp.where(has_entry, jnp.sum(e * u, axis=-1), 0.0),
            b=jnp.where(has_entry, jnp.sum(e * u * u, axis=-1), 0.0),
            r=_stacked(sums, m.shape),
            alphas=alphas,
            c=jnp.sum(jnp.where(scores <= MASKED, 0.0, scores - m[..., None]), axis=-1) if 0 in alphas else None,
        )

    def merge(self, other: Moments) -> Moments:
        """Return the moments of the union of two disjoint parts of the same rows."""
        m = jnp.maximum(self.m, other.m)
        x, y = self._about(m), other._about(m)
        return dataclasses.replace(jax.tree.map(jnp.add, x, y), m=m)

    def merge_axis(self, axis: int, keepdims: bool = False) -> Moments:
        """Return the moments of the union of all parts along one (non-negative) axis, removed unless `keepdims`."""
        m = jnp.max(self.m, axis=axis, keepdims=True)
        parts = self._about(m)
        total = jax.tree.map(lambda x: jnp.sum(x, axis=axis, keepdims=keepdims), parts)
        r = _stacked([jnp.sum(x, axis=axis, keepdims=keepdims) for x in parts.sums_by_order], total.m.shape)
        return dataclasses.replace(total, m=m if keepdims else jnp.squeeze(m, axis), r=r)

    def _about(self, m: Float[Array, "*r"]) -> Moments:
        """Return the same moments with sums about m, which is at least the largest score."""
        d = jnp.maximum(self.m - m, FLOOR)
        c = jnp.exp(d)
        b = c * (self.b + 2 * d * self.a + d * d * self.l)
        scales = [1.0 if alpha == 0 else jnp.exp(_exponent(alpha) * d) for alpha in self.alphas]
        r = _stacked([scale * x for scale, x in zip(scales, self.sums_by_order, strict=True)], d.shape)
        # Σ u is linear in the shift, which is therefore not cut: no e^u hides its size.
        linear = None if self.c is None else self.c + (self.m - m) * self._sum_of_order(0)
        return Moments(jnp.broadcast_to(m, d.shape), c * self.l, c * (self.a + d * self.l), b, r, self.alphas, linear)

    @property
    def sums_by_order(self) -> tuple[Float[Array, "*r"], ...]:
        """Return the Rényi sums, one array for each order."""
        return tuple(self.r[..., i] for i in range(len(self.alphas)))

    def first_orders(self, alphas: Alphas) -> Moments:
        """Return the same moments with the Rényi sums of `alphas`, which are the first orders, alone."""
        c = self.c if 0 in alphas else None
        return dataclasses.replace(self, r=self.r[..., : len(alphas)], alphas=alphas, c=c)

    @property
    def logsumexp(self) -> Float[Array, "*r"]:
        """Return ln Σ e^s; −1e30 for an empty row."""
        return self.m + jnp.log(self._divisor)

    @property
    def p_max(self) -> Float[Array, "*r"]:
        """Return the largest probability; 0 for an empty row."""
        return jnp.where(self.l == 0, 0.0, 1 / self._divisor)

    @property
    def entropy(self) -> Float[Array, "*r"]:
        """Return −Σ p ln p, in nats; 0 for an empty row. Within 1e-5 of float64."""
        return jnp.maximum(jnp.log(self._divisor) - self.a / self._divisor, 0.0)

    @property
    def varentropy(self) -> Float[Array, "*r"]:
        """Return Σ p (ln p + entropy)², in nats²; 0 for an empty row. Within 1e-4 of float64."""
        return jnp.maximum(self.b / self._divisor - jnp.square(self.a / self._divisor), 0.0)

    @property
    def renyi(self) -> Float[Array, "*r A"]:
        """Return the Rényi entropies in nats, one per α: (ln r_α − α ln l) / (1 − α), and its limits at 1 and ∞."""
        columns = [self._renyi(i, alpha) for i, alpha in enumerate(self.alphas)]
        return jnp.stack(columns, axis=-1) if columns else jnp.zeros_like(self.r)

    def _renyi(self, i: int, alpha: float) -> Float[Array, "*r"]:
        if alpha == 1:
            return self.entropy
        if math.isinf(alpha):
            return jnp.log(self._divisor)
        r = jnp.where(self.l == 0, 1.0, self.r[..., i])
        return jnp.maximum((jnp.log(r) - alpha * jnp.log(self._divisor)) / (1 - alpha), 0.0)

    @property
    def self_certainty(self) -> Float[Array, "*r"]:
        """Return KL(U ‖ p) in nats, U uniform over the entries; 0 for an empty row. Needs the order 0.

        The divergence is −(1/n) Σ ln p − ln n (arXiv 2502.18581). It is within 1e-5 of float64, absolute and relative.
        """
        n = self._count
        assert self.c is not None
        return jnp.where(self.l == 0, 0.0, jnp.maximum(jnp.log(self._divisor / n) - self.c / n, 0.0))

    @property
    def fisher_rao(self) -> Float[Array, "*r"]:
        """Return (2/π) arccos(Σ √p / √n), the angle to uniform over the n entries. Needs the orders 0 and ½.

        The formula is of arXiv 2212.09171. The angle is from 0 to 1; an empty row has 0. It is within 1e-5 of float64
        above 0.02; below, where the arc cosine is steep, within 5e-4.
        """
        cosine = self._sum_of_order(0.5) / self._divisor * jnp.sqrt(self._divisor / self._count)
        uniform = (self.l == 0) | (cosine >= 1)  # the arc cosine has no gradient at 1
        return jnp.where(uniform, 0.0, 2 / math.pi * jnp.arccos(jnp.where(uniform, 0.0, cosine)))

    def _sum_of_order(self, alpha: float) -> Float[Array, "*r"]:
        if alpha not in self.alphas:
            raise ValueError(f"alphas are {self.alphas}; this quantity needs the order {alpha:g} too")
        return self.r[..., self.alphas.index(alpha)]

    @property
    def _count(self) -> Float[Array, "*r"]:
        """Number of entries, or 1 for an empty row."""
        return jnp.maximum(self._sum_of_order(0), 1.0)

    @property
    def _divisor(self) -> Float[Array, "*r"]:
        """Σ e^u, or 1 for an empty row."""
        return jnp.where(self.l == 0, 1.0, self.l)


def _stacked(sums: Sequence[Float[Array, "*r"]], shape: tuple[int, ...]) -> Float[Array, "*r A"]:
    """Stack sums of rows by order. Each is computed on its own, so that XLA drops those that are not used."""
    return jnp.stack(sums, axis=-1) if sums else jnp.zeros((*shape, 0), jnp.float32)


def entropy_of(weights: Float[Array, "*r V"]) -> Float[Array, "*r"]:
    """Return −Σ w ln w over the last axis; a weight of 0 adds nothing and has no gradient."""
    return -jnp.sum(weights * jnp.log(jnp.where(weights > 0, weights, 1.0)), axis=-1)


def cross_terms(e: Any, u: Any, u_row: Any, absent: Any, row_absent: Any) -> Any:
    """Return e^u (u − u_row) of each entry: with u = ln p and u_row = ln q, the terms of KL(p ‖ q).

    An entry that p lacks adds 0, and one that q alone lacks adds ∞. Both tests are explicit, because 0 · ∞ is NaN.

    Args:
      e: e^u.
      u: score of the entry in p, up to a constant.
      u_row: score of the entry in q, up to a constant.
      absent: True if p lacks the entry.
      row_absent: True if q lacks it.
    """
    return jnp.where(absent, 0.0, jnp.where(row_absent, jnp.inf, e * (u - u_row)))


def shifted(scores: Float[Array, "*r V"], m: Float[Array, "*r"]) -> Float[Array, "*r V"]:
    """Return u = s − m, cut at a value where e^u is 0 already."""
    return jnp.maximum(scores - m[..., None], FLOOR)


def _exponent(alpha: float) -> float:
    """Return the power of e^u that is summed: α itself, and 1 for the limit ∞, which needs no sum."""
    return 1.0 if math.isinf(alpha) else alpha
