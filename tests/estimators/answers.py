"""Answers made from distributions and attention weights, with metrics from their definitions in float64."""

import numpy as np
from scipy.special import log_softmax

from jaxtrace.prompts import Prompt
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

ALPHAS = (0.25, 0.5, 2.0)
VOCAB, LAYERS, HEADS = 11, 6, 3


def random_answer(rng, steps):
    """Return log-probabilities [steps, V], drawn tokens [steps] and self weights [steps, layers, heads]."""
    logs = log_softmax(rng.normal(0, 2, (steps, VOCAB)), axis=1)
    return logs, rng.integers(0, VOCAB, steps), rng.uniform(0.05, 0.9, (steps, LAYERS, HEADS))


def row_of(logs, tokens, weights, prompt="p", text="", prompt_steps=0, meta=None):
    """Return a row whose metrics follow from an answer; `prompt_steps` more steps before it have other values."""
    p, probs = np.exp(logs), np.sort(np.exp(logs), axis=1)
    entropy = -(p * logs).sum(1)
    metrics = {
        "token": tokens,
        "logprob": logs[np.arange(len(tokens)), tokens],
        "entropy": entropy,
        "varentropy": (p * (logs + entropy[:, None]) ** 2).sum(1),
        "renyi": np.stack([np.log((p**alpha).sum(1)) / (1 - alpha) for alpha in ALPHAS], 1),
        "top1_prob": probs[:, -1],
        "self_certainty": -logs.mean(1) - np.log(VOCAB),
        "fisher_rao": 2 / np.pi * np.arccos(np.minimum(np.sqrt(p).sum(1) / np.sqrt(VOCAB), 1)),
        "attention_self": weights,
    }
    ahead = {name: np.full((prompt_steps, *values.shape[1:]), 3) for name, values in metrics.items()}
    metrics = {
        name: np.concatenate([ahead[name], values]).astype(np.int32 if name == "token" else np.float32)
        for name, values in metrics.items()
    }
    pieces = ("",) * len(metrics["token"])
    about = Prompt(text=prompt, id=prompt, meta=meta or {})
    return Row(about, np.arange(3, dtype=np.int32), ("a", "b", "c"), metrics, pieces, text, "length", prompt_steps)


def trace_of(rows, **info):
    """Return a trace of rows from `row_of`."""
    base = {"mode": "generate", "layers": LAYERS, "heads": HEADS, "alphas": list(ALPHAS), "vocab_size": VOCAB}
    return Trace(rows, base | info)
