"""Helpers of the Mosaic GPU kernels: sums over one tile after another, about a growing maximum, in registers.

No function here fixes a shape: a sum may belong to a row, or to each of many lanes that are merged at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import mosaic_gpu
from jaxtyping import Array, Float

from .moments import FLOOR, MASKED, Alphas
from .tiles import RunningSums

plgpu: Any = mosaic_gpu  # its attributes differ between jax 0.10 and 0.12
INTERPRETED = hasattr(plgpu, "InterpretGPUParams")  # from jax 0.12 on


def too_old() -> str | None:
    """Return why no GPU kernel can serve a call under this jax, or None."""
    return None if INTERPRETED else "needs jax 0.12"


def interpreter(interpret: bool) -> Any:
    """Return the `interpret` argument of `plgpu.kernel`."""
    return plgpu.InterpretGPUParams() if interpret else None


def empty_sums(zero: Any, alphas: Alphas) -> RunningSums:
    """Return the sums of no score, each of which is `zero`."""
    return RunningSums(zero, zero, zero, tuple(zero for _ in alphas), zero if 0 in alphas else None)


def sum_terms(scores: Any, m: Any, alphas: Alphas = ()) -> RunningSums:
    """Return each score's terms of the sums about m, which has the scores' shape; 0 for an absent score."""
    absent = scores <= MASKED
    u = jnp.maximum(scores - m, FLOOR)
    e, *r = (jnp.where(absent, 0.0, power) for power in _powers(u, alphas))
    c = jnp.where(absent, 0.0, scores - m) if 0 in alphas else None
    return RunningSums(e, e * u, e * u * u, tuple(r), c)


def bfloat16_pieces(x: Float[Array, "*x"]) -> Array:
    """Split x into bfloat16 pieces [P, …] that add up to it, the largest first: one of bfloat16, three of other dtypes.

    `reduce_precision` rounds explicitly because XLA may remove a conversion to bfloat16 and back.
    """
    if x.dtype == jnp.bfloat16:
        return x[None]
    remainder, pieces = x.astype(jnp.float32), []
    for _ in range(3):
        pieces.append(lax.reduce_precision(remainder, exponent_bits=8, mantissa_bits=7))
        remainder = remainder - pieces[-1]
    return jnp.stack(pieces).astype(jnp.bfloat16)


def _powers(u: Any, alphas: Alphas) -> Iterator[Any]:
    """Yield e^u, then e^{αu} for every α (e^u for α = ∞), from powers of e^{u/2} where these are exact."""
    root = jnp.exp(u / 2)
    yield root * root
    for alpha in alphas:
        halves = 2.0 if math.isinf(alpha) else 2 * alpha
        if halves != int(halves) or halves > 32:
            yield jnp.exp(alpha * u)
        elif halves == 0:
            yield jnp.ones_like(u)
        else:
            yield root if halves == 1 else lax.integer_pow(root, int(halves))
