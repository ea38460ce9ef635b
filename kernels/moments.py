"""The moment algebra: everything a softmax has to say about itself, in a handful of mergeable sums.

For scores s with m = max s and u = s − m the sums l = Σ eᵘ, a = Σ eᵘu, b = Σ eᵘu² and r_α = Σ e^{αu} give entropy,
varentropy, log-sum-exp, the largest probability and the Rényi entropies. Partial results over any split of the row
merge exactly; raw scores never enter the sums, so a constant added to all scores changes nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Scores at or below MASKED are not there; shifts are cut at FLOOR, where e^u is 0 in float32 and u² is finite.
MASKED = -1e30
FLOOR = -1e4

# A lone row is summed in blocks, which are merged: XLA's CPU backend adds it up entry by entry otherwise, which at
# 131,072 entries costs 7e-4 nats² of varentropy (8e-6 where there are two rows or more).
BLOCK = 1024


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Moments of softmax rows, a commutative monoid under `merge` with `Moments.empty` as its neutral element.

    Attributes:
      m: the largest score; `MASKED` for an empty row.
      l: Σ e^u.
      a: Σ e^u u.
      b: Σ e^u u².
      r: Σ e^{αu}, one per α (last axis).
      alphas: the α's, static.
    """

    m: Float[Array, "*r"]
    l: Float[Array, "*r"]  # noqa: E741 (its name in the definition)
    a: Float[Array, "*r"]
    b: Float[Array, "*r"]
    r: Float[Array, "*r A"]
    alphas: tuple[float, ...] = dataclasses.field(default=(), metadata={"static": True})

    @classmethod
    def empty(cls, shape: Sequence[int], alphas: tuple[float, ...] = ()) -> Moments:
        """Moments of rows with no entry."""
        zero = jnp.zeros(shape, jnp.float32)
        return cls(jnp.full(shape, MASKED), zero, zero, zero, jnp.zeros((*shape, len(alphas))), alphas)

    @classmethod
    def of(
        cls,
        scores: Float[Array, "*r V"],
        where: Bool[Array, "*#r V"] | None = None,
        alphas: tuple[float, ...] = (),
        largest: Float[Array, "*r"] | None = None,
    ) -> Moments:
        """Moments over the last axis, in float32.

        Args:
          scores: any float dtype; entries at −∞ (or ≤ −1e30) count as absent.
          where: entries to count; None counts all.
          alphas: orders of the Rényi sums to keep. α = 0 counts the entries; 1 and ∞ need no sum of their own.
          largest: each row's largest score, where it is known already.

        Returns:
          Moments of shape [*r]. A row with a NaN or +∞ is NaN; a row with no entry is empty.
        """
        scores = scores.astype(jnp.float32)
        if where is not None:
            scores = jnp.where(where, scores, MASKED)
        # In two dimensions: XLA's CPU backend is up to five times slower over the same rows in more.
        flat = scores.reshape(-1, scores.shape[-1])
        blocks = -(-flat.shape[-1] // BLOCK)
        if len(flat) == 1 and blocks > 1:
            pad = -flat.shape[-1] % blocks
            parts = jnp.pad(flat, ((0, 0), (0, pad)), constant_values=MASKED).reshape(blocks, -1)
            moments = cls._of_rows(parts, alphas, jnp.max(parts, axis=-1))
            moments = jax.tree.map(lambda x: x[None], moments.merge_axis(0))
        else:
            moments = cls._of_rows(flat, alphas, jnp.max(flat, axis=-1) if largest is None else largest.reshape(-1))
        return jax.tree.map(lambda x: x.reshape(*scores.shape[:-1], *x.shape[1:]), moments)

    @classmethod
    def _of_rows(cls, scores: Float[Array, "R V"], alphas: tuple[float, ...], largest: Float[Array, " R"]) -> Moments:
        m = jnp.maximum(largest, MASKED)
        u = shifted(scores, m)
        e = jnp.exp(u)
        # Each from an exponential of its own: XLA's CPU backend would keep a shared one in memory, which costs more.
        sums = [
            jnp.sum(scores > MASKED, axis=-1, dtype=jnp.float32)
            if alpha == 0
            else jnp.sum(jnp.exp(_order(alpha) * u), axis=-1)
            for alpha in alphas
        ]
        r = jnp.stack(sums, axis=-1) if sums else jnp.zeros((*m.shape, 0), jnp.float32)
        l = jnp.sum(e, axis=-1)  # noqa: E741
        some = (m > MASKED) | jnp.isnan(l)  # a backend's maximum may pass over NaN, a sum does not
        return cls(
            m=m,
            l=jnp.where(some, l, 0.0),
            a=jnp.where(some, jnp.sum(e * u, axis=-1), 0.0),
            b=jnp.where(some, jnp.sum(e * u * u, axis=-1), 0.0),
            r=jnp.where(some[..., None], r, 0.0),
            alphas=alphas,
        )

    def merge(self, other: Moments) -> Moments:
        """Moments of the union of two disjoint parts of the same rows."""
        m = jnp.maximum(self.m, other.m)
        x, y = self._shifted_to(m), other._shifted_to(m)
        return Moments(m, x.l + y.l, x.a + y.a, x.b + y.b, x.r + y.r, self.alphas)

    def merge_axis(self, axis: int) -> Moments:
        """Moments of the union of all parts along one (non-negative) axis, which goes away."""
        m = jnp.max(self.m, axis=axis, keepdims=True)
        x = self._shifted_to(m)
        total = lambda v: jnp.sum(v, axis=axis)  # noqa: E731
        return Moments(jnp.squeeze(m, axis), total(x.l), total(x.a), total(x.b), total(x.r), self.alphas)

    def _shifted_to(self, m: Float[Array, "*r"]) -> Moments:
        d = jnp.maximum(self.m - m, FLOOR)
        c = jnp.exp(d)
        b = c * (self.b + 2 * d * self.a + d * d * self.l)
        scales = [jnp.ones_like(d) if alpha == 0 else jnp.exp(_order(alpha) * d) for alpha in self.alphas]
        r = jnp.stack(scales, axis=-1) * self.r if scales else self.r
        return Moments(jnp.broadcast_to(m, d.shape), c * self.l, c * (self.a + d * self.l), b, r, self.alphas)

    @property
    def logsumexp(self) -> Float[Array, "*r"]:
        """ln Σ e^s; −1e30 for an empty row."""
        return self.m + jnp.log(self._l)

    @property
    def p_max(self) -> Float[Array, "*r"]:
        """The largest probability; 0 for an empty row."""
        return jnp.where(self.l == 0, 0.0, 1 / self._l)

    @property
    def entropy(self) -> Float[Array, "*r"]:
        """−Σ p ln p, in nats; 0 for an empty row. Within 1e-5 of float64."""
        return jnp.maximum(jnp.log(self._l) - self.a / self._l, 0.0)

    @property
    def varentropy(self) -> Float[Array, "*r"]:
        """Σ p (ln p + entropy)², in nats²; 0 for an empty row. Within 1e-4 of float64."""
        return jnp.maximum(self.b / self._l - jnp.square(self.a / self._l), 0.0)

    @property
    def renyi(self) -> Float[Array, "*r A"]:
        """Rényi entropies in nats, one per α: (ln r_α − α ln l) / (1 − α), and its limits at 1 and ∞."""
        columns = [self._renyi(i, alpha) for i, alpha in enumerate(self.alphas)]
        return jnp.stack(columns, axis=-1) if columns else jnp.zeros_like(self.r)

    def _renyi(self, i: int, alpha: float) -> Float[Array, "*r"]:
        if alpha == 1:
            return self.entropy
        if math.isinf(alpha):
            return jnp.log(self._l)
        r = jnp.where(self.l == 0, 1.0, self.r[..., i])
        return jnp.maximum((jnp.log(r) - alpha * jnp.log(self._l)) / (1 - alpha), 0.0)

    @property
    def _l(self) -> Float[Array, "*r"]:
        return jnp.where(self.l == 0, 1.0, self.l)


def shifted(scores: Float[Array, "*r V"], m: Float[Array, "*r"]) -> Float[Array, "*r V"]:
    """u = s − m, cut where e^u is 0 all the same."""
    return jnp.maximum(scores - m[..., None], FLOOR)


def _order(alpha: float) -> float:
    """The power of e^u that is summed: α itself, and 1 for the limits that need no sum."""
    return 1.0 if math.isinf(alpha) else alpha
