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
    """

    l: Any  # noqa: E741 (its name in the definition)
    a: Any
    b: Any
    r: tuple[Any, ...] = ()


def shift_sums(sums: RunningSums, d: Any, alphas: Alphas = ()) -> RunningSums:
    """Return sums about m as sums about m − d; d ≤ 0 is m minus the new maximum."""
    d = jnp.maximum(d, FLOOR)
    c = jnp.exp(d)
    a = c * (sums.a + d * sums.l)
    b = c * (sums.b + d * (2 * sums.a + d * sums.l))
    return RunningSums(c * sums.l, a, b, tuple(power(alpha, c, d) * r for alpha, r in zip(alphas, sums.r, strict=True)))


def power(alpha: float, e: Any, u: Any) -> Any:
    """Return e^{αu}, computed from e = e^u where that is exact."""
    if math.isinf(alpha) or alpha == 1:
        return e
    if alpha == int(alpha) and 2 <= alpha <= 16:
        return lax.integer_pow(e, int(alpha))
    return jnp.exp(alpha * u)
