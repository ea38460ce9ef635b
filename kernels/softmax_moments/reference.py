"""softmax_moments, obviously: one pass for each quantity."""

import jax
import jax.numpy as jnp

from ..moments import FLOOR, MASKED, Moments
from .types import SoftmaxMoments


def softmax_moments(logits, *, alphas):
    logits = jnp.maximum(logits.astype(jnp.float32), MASKED)
    m = jnp.max(logits, axis=-1, keepdims=True)
    u = jnp.maximum(logits - m, FLOOR)
    present = (logits > MASKED).astype(jnp.float32)
    weights = present * jnp.exp(u)
    powers = [present * jnp.exp((1.0 if alpha == jnp.inf else alpha) * u) for alpha in alphas]
    moments = Moments(
        m=m[..., 0],
        l=jnp.sum(weights, -1),
        a=jnp.sum(weights * u, -1),
        b=jnp.sum(weights * u**2, -1),
        r=jnp.stack([jnp.sum(p, -1) for p in powers], -1) if powers else jnp.zeros((*m.shape[:-1], 0)),
        alphas=alphas,
    )
    two = jnp.concatenate([logits, jnp.full((*logits.shape[:-1], 1), MASKED)], axis=-1)
    values, indices = jax.lax.top_k(two, 2)
    log_p = values - moments.logsumexp[..., None]
    gap = jnp.where(moments.l == 0, 0.0, jnp.exp(log_p[..., 0]) - jnp.exp(log_p[..., 1]))
    return SoftmaxMoments(moments, indices[..., 0].astype(jnp.int32), gap)
