"""Running sums that the Pallas kernels keep of a row while they add one tile of its scores after another."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from .moments import FLOOR, Alphas


class RunningSums(NamedTuple):
    """Sums of a row about a maximum that is kept beside them.

    Attributes:
      l: Σ e^u.
      a: Σ e^u u.
      b: Σ e^u u².
      r: Rényi sums Σ e^{αu}, one per α.
      c: Σ u; None unless 0 is among the orders.
    """

    l: Any  # noqa: E741 (its name in the definition)
    a: Any
    b: Any
    r: tuple[Any, ...] = ()
    c: Any = None


def shift_sums(sums: RunningSums, d: Any, alphas: Alphas = ()) -> RunningSums:
    """Return sums about m as sums about m − d; d ≤ 0 is m minus the new maximum."""
    linear = None
    if sums.c is not None:
        count = sums.r[alphas.index(0)]
        linear = sums.c + jnp.where(count > 0, d * count, 0.0)  # d, which is not cut here, may be −∞ without entries
    d = jnp.maximum(d, FLOOR)
    c = jnp.exp(d)
    a = c * (sums.a + d * sums.l)
    b = c * (sums.b + d * (2 * sums.a + d * sums.l))
    r = tuple(power(alpha, c, d) * r for alpha, r in zip(alphas, sums.r, strict=True))
    return RunningSums(c * sums.l, a, b, r, linear)


def power(alpha: float, e: Any, u: Any) -> Any:
    """Return e^{αu}, computed from e = e^u where that is exact."""
    if math.isinf(alpha) or alpha == 1:
        return e
    if alpha == int(alpha) and 2 <= alpha <= 16:
        return lax.integer_pow(e, int(alpha))
    return jnp.exp(alpha * u)
