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
    """Return the entropy H of p = softmax(z / T), and the central moments μ₂ and μ₃ of ln p, in nats, nats² and nats³.

    H grows with T: dH/dT = μ₂ / T and d²H/dT² = −(μ₃ + 3 μ₂) / T².
    """
    present = logits > MASKED / 2
    scaled = (logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature[:, None]
    weights = jnp.where(present, jnp.exp(scaled), 0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    p, logp = weights / total, jnp.where(weights > 0, scaled - jnp.log(total), 0)
    entropy = -jnp.sum(p * logp, axis=-1)
    deviation = logp + entropy[:, None]
    return entropy, jnp.sum(p * deviation**2, axis=-1), jnp.sum(p * deviation**3, axis=-1)


def tuned_temperature(
    logits: Float[Array, "B V"], target: Float[Array, " B"], *, tolerance: float = 1e-4
) -> Float[Array, " B"]:
    """Return the T at which softmax(logits / T) has the target entropy.

    Halley's method from T = 1, with steps of at most T / 2 inside a shrinking bracket; a step that leaves the bracket
    is replaced by its geometric middle. If no T reaches the target, the result is the nearer end of [1e-4, 1e4].

    Args:
      logits: raw logits; −1e30 marks absent entries.
      target: target entropy in nats.
      tolerance: accepted error of the entropy, in nats.
    """

    def body(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        i, temperature, low, high, open_ = carry
        entropy, second, third = entropy_moments(logits, temperature)
        gap = entropy - target
        open_ &= (jnp.abs(gap) > tolerance) & (high - low > 1e-6 * temperature)
        low, high = jnp.where(gap < 0, temperature, low), jnp.where(gap < 0, high, temperature)
        slope, bend = second / temperature, -(third + 3 * second) / temperature**2
        denominator = 2 * slope**2 - gap * bend
        step = jnp.where(denominator == 0, jnp.inf, 2 * gap * slope / jnp.where(denominator == 0, 1, denominator))
        step = jnp.where(jnp.isfinite(step) & (step * gap > 0), step, jnp.sign(gap) * temperature)
        moved = temperature - jnp.clip(step, -temperature / 2, temperature / 2)
        moved = jnp.where((moved > low) & (moved < high), moved, jnp.sqrt(low * high))
        return i + 1, jnp.where(open_, moved, temperature), low, high, open_

    def unfinished(carry: tuple[Array, ...]) -> Bool[Array, ""]:
        return (carry[0] < ITERATIONS) & jnp.any(carry[-1])

    ones = jnp.ones_like(target)
    start = jnp.int32(0), ones, LEAST * ones, MOST * ones, jnp.isfinite(target)
    return jax.lax.while_loop(unfinished, body, start)[1]
