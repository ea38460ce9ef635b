"""The temperature at which a distribution has a given entropy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxtrace.kernels.moments import MASKED

LEAST, MOST = 1e-4, 1e4
ITERATIONS = 60


def entropy_moments(
    logits: Float[Array, "B V"], temperature: Float[Array, " B"]
) -> tuple[Float[Array, " B"], Float[Array, " B"], Float[Array, " B"]]:
    """Entropy H of softmax(z / T), and the second and third central moments of its ln p, in powers of nats.

    H grows with T: dH/dT = μ₂ / T and d²H/dT² = −(μ₃ + 3 μ₂) / T².
    """
    there = logits > MASKED / 2
    scaled = (logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature[:, None]
    weights = jnp.where(there, jnp.exp(scaled), 0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    p, logp = weights / total, jnp.where(weights > 0, scaled - jnp.log(total), 0)
    entropy = -jnp.sum(p * logp, axis=-1)
    away = logp + entropy[:, None]
    return entropy, jnp.sum(p * away**2, axis=-1), jnp.sum(p * away**3, axis=-1)


def tuned_temperature(
    logits: Float[Array, "B V"], target: Float[Array, " B"], *, tolerance: float = 1e-4
) -> Float[Array, " B"]:
    """The T at which softmax(logits / T) has the target entropy; the nearest end of [1e-4, 1e4] where none has.

    Halley's method from 1, each step of T / 2 at most and within the bracket found so far, halved where a step leaves
    it.

    Args:
      logits: −1e30 marks absent entries.
      target: in nats.
      tolerance: of the entropy, in nats.
    """

    def body(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        i, temperature, low, high, open_ = carry
        entropy, second, third = entropy_moments(logits, temperature)
        gap = entropy - target
        open_ &= (jnp.abs(gap) > tolerance) & (high - low > 1e-6 * temperature)
        low, high = jnp.where(gap < 0, temperature, low), jnp.where(gap < 0, high, temperature)
        slope, bend = second / temperature, -(third + 3 * second) / temperature**2
        over = 2 * slope**2 - gap * bend
        step = jnp.where(over == 0, jnp.inf, 2 * gap * slope / jnp.where(over == 0, 1, over))
        step = jnp.where(jnp.isfinite(step) & (step * gap > 0), step, jnp.sign(gap) * temperature)
        moved = temperature - jnp.clip(step, -temperature / 2, temperature / 2)
        moved = jnp.where((moved > low) & (moved < high), moved, jnp.sqrt(low * high))
        return i + 1, jnp.where(open_, moved, temperature), low, high, open_

    def going(carry: tuple[Array, ...]) -> Bool[Array, ""]:
        return (carry[0] < ITERATIONS) & jnp.any(carry[-1])

    rows = jnp.ones_like(target)
    start = jnp.int32(0), rows, LEAST * rows, MOST * rows, jnp.isfinite(target)
    return jax.lax.while_loop(going, body, start)[1]
