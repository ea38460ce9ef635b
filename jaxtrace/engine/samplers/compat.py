"""Entropix as published in commit e55e9a3, bug for bug: for parity with its traces, not for use."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from jaxtrace.engine.samplers.quadrants import ADAPTIVE, EXPLORING, FLOWING, RESAMPLING, TREADING

PAUSE = 2564  # " ..." of Llama 3
SEED = 1337
TEMPERATURE, TOP_P, TOP_K, MIN_P = 0.666, 0.9, 27, 0.03
CANDIDATES = 5


@dataclasses.dataclass(frozen=True)
class Published:
    """A draw of the published sampler.

    Attributes:
      token: the token.
      quadrant: a number of `schema.QUADRANTS`.
      metrics: its six, by its names: in bits and bits², from scores that were not masked.
    """

    token: int
    quadrant: int
    metrics: dict[str, float]


def published_metrics(logits: Float[np.ndarray, " V"], scores: Float[np.ndarray, "N Q K"]) -> dict[str, float]:
    """The six metrics as the commit has them.

    Slots that nothing was written to have a score of 0 and count. `attn_varentropy` is the variance over heads of their
    entropies. `agreement` is the mean distance of a weight from the mean over heads: a disagreement, of order 1 / K.
    """
    logp = _log_softmax(logits)
    p, bits = np.exp(logp), logp / math.log(2)
    entropy = -(p * bits).sum()
    weights = np.exp(_log_softmax(scores))
    by_head = -(weights * np.log2(np.clip(weights, 1e-10, 1))).sum(-1)
    return {
        "logits_entropy": float(entropy),
        "logits_varentropy": float((p * (bits + entropy) ** 2).sum()),
        "attn_entropy": float(by_head.mean()),
        "attn_varentropy": float(by_head.var(axis=0).mean()),
        "agreement": float(np.abs(weights - weights.mean(axis=0)).mean()),
        "interaction_strength": float(np.abs(np.asarray(scores, np.float64)).mean()),
    }


def published(logits: Float[np.ndarray, " V"], scores: Float[np.ndarray, "N Q K"], previous: int) -> Published:
    """The commit's draw for one row; the arguments are those of `Entropix.on_scores`."""
    m = published_metrics(logits, scores)
    entropy, varentropy, attention, spread = (
        m[name] for name in ("logits_entropy", "logits_varentropy", "attn_entropy", "attn_varentropy")
    )
    key = jax.random.key(SEED)  # never split from step to step
    if entropy < 0.1 and varentropy < 0.1:
        return Published(int(np.argmax(logits)), FLOWING, m)
    if entropy > 5.0 and varentropy < 0.1:
        token = PAUSE
        if previous == PAUSE:
            token = _draw(logits, key, min(1.5, TEMPERATURE * (1.3 + 0.2 * attention)), TOP_P, TOP_K)
        return Published(token, TREADING, m)
    if entropy < 5.0 and varentropy > 5.0:
        temperature = min(1.5, TEMPERATURE * (1.2 + 0.3 * m["interaction_strength"]))
        top_k = max(5, int(TOP_K * (1 + 0.5 * (1 - m["agreement"]))))
        return Published(_draw(logits, key, temperature, TOP_P, top_k), EXPLORING, m)
    if entropy > 3.0 and varentropy > 5.0:
        temperature, top_p = max(2.0, TEMPERATURE * (2.0 + 0.5 * spread)), max(0.5, TOP_P - 0.2 * attention)
        return Published(_draw(logits, key, temperature, top_p, TOP_K), RESAMPLING, m)
    uncertain = 0.3 * (entropy + varentropy) + 0.2 * (attention + spread)
    temperature = TEMPERATURE * (1 + uncertain - 0.2 * m["agreement"])
    top_p = float(np.clip(TOP_P * (1 + 0.1 * spread), 0.1, 1.0))
    top_k = round(TOP_K * (1 + 0.3 * m["interaction_strength"] - 0.2 * m["agreement"]))
    drawn = [
        _draw(logits, one, temperature, top_p, int(np.clip(top_k, 1, 100))) for one in jax.random.split(key, CANDIDATES)
    ]
    return Published(max(drawn, key=lambda token: float(logits[token])), ADAPTIVE, m)


def _draw(logits: Float[np.ndarray, " V"], key: Key[Array, ""], temperature: float, top_p: float, top_k: int) -> int:
    """Of the `top_k` likeliest tokens from the least likely on, those with no more than `top_p` before them.

    That cuts the likeliest, never the tail. Its min-p is applied to logits that are not looked at again, and so is left
    out here. The noise belongs to ranks.
    """
    p = np.exp(_log_softmax(np.asarray(logits, np.float64) / temperature))
    ids = np.argsort(-p, kind="stable")[: min(top_k, len(p))][::-1]
    kept = np.where(np.cumsum(p[ids]) - p[ids] > top_p, 0.0, p[ids])
    noise = np.asarray(jax.random.exponential(key, (1, len(ids))), np.float64)[0]
    return int(ids[np.argmax(kept / kept.sum() / noise)])


def _log_softmax(x: Float[np.ndarray, "*r n"]) -> Float[np.ndarray, "*r n"]:
    shifted = np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
