"""Baselines that the kernels are timed against.

"No moments": the same product or attention without sums. "Unfused": the metrics written in plain JAX from logits or
weights, fused by XLA alone.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import entr
from jaxtrace.kernels import linear
from jaxtyping import Array, Float, Int

ALPHAS = (0.5, 2.0, 5.0)


Queries = Float[Array, "B T N H"]
Keys = Float[Array, "B K H S"]
Values = Float[Array, "B K S H"]


def logsumexp(logits: Float[Array, "R V"]) -> Float[Array, " R"]:
    """Return each row's log-sum-exp in float32."""
    return jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1)


def logits_of(hidden: Float[Array, "G R D"], unembedding: Float[Array, "V D"]) -> Float[Array, "X V"]:
    """Return stored logits [G·R, V], by the product of the XLA kernel, which is no slower than an einsum."""
    return linear(hidden.reshape(-1, hidden.shape[-1]), unembedding, jnp.float32)


def largest_logits(hidden: Float[Array, "G R D"], unembedding: Float[Array, "V D"]) -> Float[Array, " X"]:
    """Return each row's largest logit; the logits themselves need not be stored."""
    return jnp.max(logits_of(hidden, unembedding), axis=-1)


def largest_scores(q: Queries, k: Keys) -> Float[Array, "B K G T"]:
    """Return each query's largest score; the scores themselves need not be stored."""
    return jnp.max(_scores(q, k), axis=-1)


def dot_product_attention(q: Queries, k: Float[Array, "B S K H"], v: Float[Array, "B S K H"]) -> Queries:
    """Return JAX's own attention of the last T of S positions; keys and values have its layout."""
    t, s = q.shape[1], k.shape[1]
    mask = None if t == 1 else jnp.tril(jnp.ones((t, s), bool), s - t)[None, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask)


def cudnn_attention(q: Queries, k: Float[Array, "B S K H"], v: Float[Array, "B S K H"]) -> Queries:
    """Return cuDNN's attention of the same arguments; causal if every position is a query, else with a stored mask."""
    t, s = q.shape[1], k.shape[1]
    mask = None if t in (1, s) else jnp.tril(jnp.ones((t, s), bool), s - t)[None, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=t == s, implementation="cudnn")


def unfused_softmax(logits: Float[Array, "R V"]) -> dict[str, Array]:
    """Return the metrics of softmax_moments from stored log-probabilities."""
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    p = jnp.exp(log_p)
    best, top1 = jax.lax.top_k(p, 2)
    return {
        "entropy": -jnp.sum(p * log_p, axis=-1),
        "varentropy": _varentropy(p, log_p),
        "renyi": _renyi(log_p),
        "top1": top1[..., 0],
        "top1_prob": best[..., 0],
        "top1_top2_gap": best[..., 0] - best[..., 1],
        **_distances_to_uniform(log_p),
    }


def unfused_unembed(
    hidden: Float[Array, "G R D"], unembedding: Float[Array, "V D"], targets: Int[Array, " R"]
) -> dict[str, Array]:
    """Return the metrics of unembed_moments from stored log-probabilities."""
    logits = jnp.einsum("grd,vd->grv", hidden, unembedding, preferred_element_type=jnp.float32)
    log_p = jax.nn.log_softmax(logits, axis=-1)
    p = jnp.exp(log_p)
    best, _ = jax.lax.top_k(p[-1], 2)
    return {
        "entropy": -jnp.sum(p * log_p, axis=-1),
        "varentropy": _varentropy(p, log_p),
        "renyi": _renyi(log_p[-1]),
        "top1": jnp.argmax(log_p, axis=-1),
        "top1_prob": jnp.max(p, axis=-1),
        "top1_top2_gap": best[..., 0] - best[..., 1],
        **_distances_to_uniform(log_p[-1]),
        "kl": jnp.sum(p[-1] * (log_p[-1] - log_p), axis=-1),
        "logprob": jnp.take_along_axis(log_p[-1], targets[:, None], axis=-1)[:, 0],
    }


def _distances_to_uniform(log_p: Float[Array, "R V"]) -> dict[str, Array]:
    cosine = jnp.sum(jnp.exp(log_p / 2), axis=-1) / math.sqrt(log_p.shape[-1])
    return {
        "self_certainty": -jnp.mean(log_p, axis=-1) - math.log(log_p.shape[-1]),
        "fisher_rao": 2 / math.pi * jnp.arccos(cosine),
    }


def unfused_attention(q: Queries, k: Keys, v: Values) -> tuple[Queries, dict[str, Array]]:
    """Return (output, metrics) of queries at the last T of S slots from stored weights."""
    weights = _weights(q, k)
    out = jnp.einsum("bkgts,bksh->bkgth", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    entropy = jnp.sum(entr(weights), axis=-1)
    no_sink = weights[..., 1:] / jnp.sum(weights[..., 1:], axis=-1, keepdims=True).clip(1e-30)
    t, s = weights.shape[-2:]
    visible = jnp.arange(s - t + 1, s + 1)
    log_weights = jnp.log(jnp.where(weights > 0, weights, 1.0))

    def weight_on(keys: Int[Array, " T"]) -> Float[Array, "B K G T"]:
        return jnp.take_along_axis(weights, keys.reshape(1, 1, 1, -1, 1), axis=-1)[..., 0]

    return out.transpose(0, 3, 1, 2, 4).reshape(q.shape).astype(q.dtype), {
        "entropy": entropy,
        "entropy_normalized": jnp.where(visible > 1, entropy / jnp.log(visible.clip(2)), 0.0),
        "varentropy": _varentropy(weights, log_weights),
        "entropy_no_sink": jnp.sum(entr(no_sink), axis=-1),
        "sink_mass": weights[..., 0],
        "attention_self": weight_on(visible - 1),
        "attention_previous": jnp.where(visible > 1, weight_on((visible - 2).clip(0)), 0.0),
        "attention_prompt_mass": jnp.sum(weights, axis=-1),
        "attention_max": jnp.max(weights, axis=-1),
    }


def unfused_dispersion(q: Queries, k: Keys) -> Float[Array, "B T"]:
    """Return the divergence of the heads from stored weights."""
    weights = _weights(q, k)
    mixture = jnp.mean(weights, axis=(1, 2))
    return jnp.sum(entr(mixture), axis=-1) - jnp.mean(jnp.sum(entr(weights), axis=-1), axis=(1, 2))


def _varentropy(p: Float[Array, "*r V"], log_p: Float[Array, "*r V"]) -> Float[Array, "*r"]:
    mean = jnp.sum(p * log_p, axis=-1)
    return jnp.sum(p * log_p**2, axis=-1) - mean**2


def _renyi(log_p: Float[Array, "R V"]) -> Float[Array, "R A"]:
    orders = [jax.nn.logsumexp(alpha * log_p, axis=-1) / (1 - alpha) for alpha in ALPHAS]
    return jnp.stack(orders, axis=-1)


def _scores(q: Queries, k: Keys) -> Float[Array, "B K G T S"]:
    b, t, n, h = q.shape
    groups = q.reshape(b, t, k.shape[1], n // k.shape[1], h).transpose(0, 2, 3, 1, 4)
    return jnp.einsum("bkgth,bkhs->bkgts", groups, k, preferred_element_type=jnp.float32) * h**-0.5


def _weights(q: Queries, k: Keys) -> Float[Array, "B K G T S"]:
    scores = _scores(q, k)
    t, s = scores.shape[-2:]
    visible = jnp.tril(jnp.ones((t, s), bool), s - t)
    return jax.nn.softmax(jnp.where(visible, scores, -jnp.inf), axis=-1)
