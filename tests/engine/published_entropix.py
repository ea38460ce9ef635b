"""Entropix as published in commit e55e9a3, bug for bug, for one row of recorded logits and attention scores."""

import math

import jax
import numpy as np

PAUSE = 2564  # " ..." of Llama 3
SEED = 1337
TEMPERATURE, TOP_P, TOP_K = 0.666, 0.9, 27
CANDIDATES = 5


def published_metrics(logits, scores):
    """Return the commit's six metrics of logits [V] and unmasked attention scores [N, Q, K].

    Unwritten cache slots have a score of 0 and count. `attn_varentropy` is the variance over heads of their entropies.
    `agreement` is the mean distance of a weight from the mean over heads: a disagreement, of order 1 / K.
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


def published_draw(logits, scores, previous):
    """Return (name of the quadrant, token) of the commit's draw; `previous` is the row's last token."""
    m = published_metrics(logits, scores)
    entropy, varentropy, attention, spread = (
        m[name] for name in ("logits_entropy", "logits_varentropy", "attn_entropy", "attn_varentropy")
    )
    key = jax.random.key(SEED)  # never split from step to step
    if entropy < 0.1 and varentropy < 0.1:
        return "flowing", int(np.argmax(logits))
    if entropy > 5.0 and varentropy < 0.1:
        if previous != PAUSE:
            return "treading", PAUSE
        return "treading", _draw(logits, key, min(1.5, TEMPERATURE * (1.3 + 0.2 * attention)), TOP_P, TOP_K)
    if entropy < 5.0 and varentropy > 5.0:
        temperature = min(1.5, TEMPERATURE * (1.2 + 0.3 * m["interaction_strength"]))
        top_k = max(5, int(TOP_K * (1 + 0.5 * (1 - m["agreement"]))))
        return "exploring", _draw(logits, key, temperature, TOP_P, top_k)
    if entropy > 3.0 and varentropy > 5.0:
        temperature, top_p = max(2.0, TEMPERATURE * (2.0 + 0.5 * spread)), max(0.5, TOP_P - 0.2 * attention)
        return "resampling", _draw(logits, key, temperature, top_p, TOP_K)
    uncertain = 0.3 * (entropy + varentropy) + 0.2 * (attention + spread)
    temperature = TEMPERATURE * (1 + uncertain - 0.2 * m["agreement"])
    top_p = float(np.clip(TOP_P * (1 + 0.1 * spread), 0.1, 1.0))
    top_k = int(np.clip(round(TOP_K * (1 + 0.3 * m["interaction_strength"] - 0.2 * m["agreement"])), 1, 100))
    drawn = [_draw(logits, one, temperature, top_p, top_k) for one in jax.random.split(key, CANDIDATES)]
    return "adaptive", max(drawn, key=lambda token: float(logits[token]))


def _draw(logits, key, temperature, top_p, top_k):
    """Draw from the `top_k` most likely tokens, summing from the least likely one and stopping above `top_p`.

    That drops the most likely tokens and never the tail. The commit's min-p changes logits that it never reads again,
    so it is omitted here. The noise belongs to ranks instead of tokens.
    """
    p = np.exp(_log_softmax(np.asarray(logits, np.float64) / temperature))
    ids = np.argsort(-p, kind="stable")[: min(top_k, len(p))][::-1]
    kept = np.where(np.cumsum(p[ids]) - p[ids] > top_p, 0.0, p[ids])
    noise = np.asarray(jax.random.exponential(key, (1, len(ids))), np.float64)[0]
    return int(ids[np.argmax(kept / kept.sum() / noise)])


def _log_softmax(x):
    shifted = np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
