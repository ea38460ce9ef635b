"""Dirichlet distributions over K tokens, one per row: fits, likelihoods, expected entropies."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Bool, Float, Key

LARGEST = 1e6  # float32 cannot tell larger concentrations apart
ITERATIONS = 140


def log_likelihood(alpha: Float[Array, "*r K"], logp: Float[Array, "*r K"]) -> Float[Array, "*r"]:
    """Return the log density of Dir(α) at p: Σ (α − 1) ln p + ln Γ(Σα) − Σ ln Γ(α)."""
    return jnp.sum((alpha - 1) * logp - gammaln(alpha), axis=-1) + gammaln(jnp.sum(alpha, axis=-1))


def expected_log(alpha: Float[Array, "*r K"]) -> Float[Array, "*r K"]:
    """Return E[ln p] under Dir(α): ψ(α) − ψ(Σα)."""
    return digamma(alpha) - digamma(jnp.sum(alpha, axis=-1, keepdims=True))


def expected_entropy(alpha: Float[Array, "*r K"]) -> Float[Array, "*r"]:
    """Return E[H(p)] under Dir(α) in nats: ψ(Σα + 1) − Σ (α / Σα) ψ(α + 1) (Wolpert and Wolf 1995)."""
    total = jnp.sum(alpha, axis=-1)
    return digamma(total + 1) - jnp.sum(alpha * digamma(alpha + 1), axis=-1) / total


def expected_varentropy(alpha: Float[Array, "*r K"]) -> Float[Array, "*r"]:
    """Return E[V(p)] under Dir(α) in nats²: E[Σ p ln² p] − E[H²], both in closed form (Wolpert and Wolf 1995)."""
    total = jnp.sum(alpha, axis=-1)
    one, two = total[..., None] + 1, total[..., None] + 2
    share = alpha / total[..., None]
    squares = jnp.square(digamma(alpha + 1) - digamma(one)) + trigamma(alpha + 1) - trigamma(one)
    second = jnp.sum(share * squares, axis=-1)
    off = alpha * (digamma(alpha + 1) - digamma(two))
    pairs = jnp.square(jnp.sum(off, axis=-1)) - jnp.sum(jnp.square(off), axis=-1)
    pairs -= trigamma(two[..., 0]) * (jnp.square(total) - jnp.sum(jnp.square(alpha), axis=-1))
    diagonal = jnp.square(digamma(alpha + 2) - digamma(two)) + trigamma(alpha + 2) - trigamma(two)
    diagonal *= alpha * (alpha + 1)
    return second - (pairs + jnp.sum(diagonal, axis=-1)) / (total * (total + 1))


def draw_log(keys: Key[Array, " B"], alpha: Float[Array, "B K"]) -> Float[Array, "B K"]:
    """Draw p ~ Dir(α) for each row and return ln p."""
    return jax.nn.log_softmax(jax.vmap(jax.random.loggamma)(keys, alpha), axis=-1)


def fit(
    target: Float[Array, "B K"],
    start: Float[Array, "B K"],
    *,
    tolerance: float = 1e-4,
    iterations: int = ITERATIONS,
) -> Float[Array, "B K"]:
    """Return the α whose E[ln p] equals the target: the maximum-likelihood fit to observations with this mean ln p.

    Newton's method with the Hessian's diagonal and rank-one part (Minka 2000). A step moves each α by at most half of
    itself. A row is finished when its largest error is below the tolerance.

    Args:
      target: mean ln p. A fit exists only if Σ exp(target) < 1; α stays below 1e6 in any case.
      start: initial α, above 0.
      tolerance: accepted error of E[ln p], in nats.
      iterations: largest number of steps.
    """

    def missing(alpha: Float[Array, "B K"]) -> Float[Array, "B K"]:
        return target - expected_log(alpha)

    def unfinished(carry: tuple[Array, Array, Bool[Array, " B"]]) -> Bool[Array, ""]:
        return (carry[0] < iterations) & jnp.any(carry[2])

    def body(carry: tuple[Array, Array, Bool[Array, " B"]]) -> tuple[Array, Array, Bool[Array, " B"]]:
        i, alpha, open_ = carry
        gap, curvature = missing(alpha), trigamma(alpha)
        total = 1 / trigamma(jnp.sum(alpha, axis=-1, keepdims=True))
        shared = jnp.sum(gap / curvature, axis=-1, keepdims=True)
        shared /= jnp.maximum(total - jnp.sum(1 / curvature, axis=-1, keepdims=True), 1e-6 * total)
        step = jnp.clip((gap + shared) / curvature, -alpha / 2, alpha / 2)
        alpha = jnp.where(open_[:, None], jnp.minimum(alpha + step, LARGEST), alpha)
        return i + 1, alpha, _off(missing(alpha), tolerance)

    start = jnp.asarray(start, jnp.float32)
    return jax.lax.while_loop(unfinished, body, (jnp.int32(0), start, _off(missing(start), tolerance)))[1]


def trigamma(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Return ψ₁(x) for x > 0, with a relative error below 1e-6 in float32.

    The recurrence raises x to 6 or more; the asymptotic series gives the value there.
    """
    total = jnp.zeros_like(x)
    for _ in range(6):
        small = x < 6
        total += jnp.where(small, 1 / jnp.square(x), 0)
        x = jnp.where(small, x + 1, x)
    inverse = 1 / x
    square = jnp.square(inverse)
    series = 1 / 6 - square * (1 / 30 - square * (1 / 42 - square / 30))
    return total + inverse + square / 2 + inverse * square * series


def _off(gap: Float[Array, "B K"], tolerance: float) -> Bool[Array, " B"]:
    return jnp.max(jnp.abs(gap), axis=-1) > tolerance
