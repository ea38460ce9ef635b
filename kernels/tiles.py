"""What the Pallas kernels share: a row's sums, which are kept while one tile of its scores after another is added."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from .moments import FLOOR


class Sums(NamedTuple):
    """Σ e^u, Σ e^u u, Σ e^u u² and the Rényi sums Σ e^{αu}, one per α, about a maximum that is kept beside them."""

    l: Any  # noqa: E741 (its name in the definition)
    a: Any
    b: Any
    r: tuple[Any, ...] = ()


def moved(sums: Sums, d: Any, alphas: tuple[float, ...] = ()) -> Sums:
    """Sums about m as sums about m − d; d ≤ 0 is m minus the new maximum."""
    d = jnp.maximum(d, FLOOR)
    c = jnp.exp(d)
    a = c * (sums.a + d * sums.l)
    b = c * (sums.b + d * (2 * sums.a + d * sums.l))
    return Sums(c * sums.l, a, b, tuple(power(alpha, c, d) * r for alpha, r in zip(alphas, sums.r, strict=True)))


def power(alpha: float, e: Any, u: Any) -> Any:
    """e^{αu}, from e = e^u where that is exact."""
    if math.isinf(alpha) or alpha == 1:
        return e
    if alpha == int(alpha) and 2 <= alpha <= 16:
        return lax.integer_pow(e, int(alpha))
    return jnp.exp(alpha * u)
