"""Reference softmax moments: one pass for each quantity."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..moments import FLOOR, MASKED, Alphas, Moments
from .types import SoftmaxSums


def softmax_moments(
    logits: Float[Array, "*r V"], *, alphas: Alphas, temperature: Float[Array, "*r"] | None
) -> SoftmaxSums:
    """Compute softmax_moments with pairwise sums."""
    logits = tempered(logits, temperature)
    logits = jnp.maximum(logits, MASKED)
    m = jnp.max(logits, axis=-1, keepdims=True)
    u = jnp.maximum(logits - m, FLOOR)
    absent = logits <= MASKED
    weights = jnp.where(absent, 0.0, jnp.exp(u))
    powers = [jnp.where(absent, 0.0, jnp.exp((1.0 if alpha == jnp.inf else alpha) * u)) for alpha in alphas]
    moments = Moments(
        m=m[..., 0],
        l=pairwise_sum(weights),
        a=pairwise_sum(weights * u),
        b=pairwise_sum(weights * u**2),
        r=jnp.stack([pairwise_sum(p) for p in powers], -1) if powers else jnp.zeros((*m.shape[:-1], 0)),
        alphas=alphas,
        c=pairwise_sum(jnp.where(absent, 0.0, logits - m)) if 0 in alphas else None,
    )
    padded = jnp.concatenate([logits, jnp.full((*logits.shape[:-1], 1), MASKED)], axis=-1)  # two entries at least
    values, indices = jax.lax.top_k(padded, 2)
    return SoftmaxSums(moments, indices[..., 0].astype(jnp.int32), values[..., 1])


def tempered(logits: Float[Array, "*r V"], temperature: Float[Array, "*r"] | None) -> Float[Array, "*r V"]:
    """Return the logits divided by each row's temperature, in float32; absent ones stay absent."""
    logits = logits.astype(jnp.float32)
    return logits if temperature is None else jnp.where(logits <= MASKED, MASKED, logits / temperature[..., None])


def pairwise_sum(x: Float[Array, "*r V"]) -> Float[Array, "*r"]:
    """Sum over the last axis pairwise, neighbours first, so that float32 loses almost nothing."""
    while x.shape[-1] > 1:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, x.shape[-1] % 2)])
        x = x[..., ::2] + x[..., 1::2]
    return x[..., 0]
