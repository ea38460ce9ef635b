"""Uncertainty scores of an answer that need no training. A higher score means less certainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxtrace.studies.confidence import semantic

SPIKE = 1.0  # nats
# What a score is, and the score of metrics [tokens] of an answer: the recorded ones, z and change.
ANSWER_SCORES: dict[str, tuple[str, Callable[[Mapping[str, np.ndarray]], float]]] = {
    "msp": ("−Σ ln p of the drawn tokens (maximum sequence probability)", lambda m: -m["logprob"].sum()),
    "perplexity": ("−mean ln p of the drawn tokens (logarithm of the perplexity)", lambda m: -m["logprob"].mean()),
    "first_entropy": ("entropy of the first step", lambda m: m["entropy"][0]),
    "mean_entropy": ("mean token entropy", lambda m: m["entropy"].mean()),
    "max_entropy": ("largest token entropy", lambda m: m["entropy"].max()),
    "p90_entropy": ("90th percentile of token entropy", lambda m: np.quantile(m["entropy"], 0.9)),
    "mean_varentropy": ("mean token varentropy", lambda m: m["varentropy"].mean()),
    "max_varentropy": ("largest token varentropy", lambda m: m["varentropy"].max()),
    "mean_surprise_z": ("mean of (surprisal − entropy) / √varentropy", lambda m: m["z"].mean()),
    "max_surprise_z": ("largest (surprisal − entropy) / √varentropy", lambda m: m["z"].max()),
    "surprisal_gap": ("mean of surprisal − entropy", lambda m: (-m["logprob"] - m["entropy"]).mean()),
    "least_top1_prob": ("1 − the smallest top-1 probability", lambda m: 1 - m["top1_prob"].min()),
    "entropy_change": ("mean |difference of entropy from step to step|", lambda m: np.abs(m["change"]).mean()),
    "entropy_rise": ("largest rise of entropy from step to step", lambda m: m["change"].max()),
    "spikes": (f"share of steps with entropy above {SPIKE:g} nat", lambda m: (m["entropy"] > SPIKE).mean()),
    "spike_run": (
        f"longest run of steps with entropy above {SPIKE:g} nat",
        lambda m: _longest_run(m["entropy"] > SPIKE),
    ),
}
BASELINE_TEXTS = {
    "length": "number of drawn tokens: the control, not an uncertainty",
    **{name: text for name, (text, _) in ANSWER_SCORES.items()},
    "sequence_entropy": "−mean over samples of Σ ln p of the drawn tokens",
    "semantic_entropy": "entropy over clusters of equal answers, weighted by their probabilities",
    "discrete_semantic_entropy": "entropy over clusters of equal answers, by counts",
    "answer_sets": "number of clusters of equal answers",
}


def answer_baselines(metrics: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the uncertainty scores of one answer that its metrics allow; see `BASELINE_TEXTS`.

    Definitions follow lm-polygraph (Fadeeva et al. 2023) where it has them, except that the last token counts here
    whether or not it ends the text. Self-certainty is a metric of each step (`self_certainty`), and no score here yet.

    Args:
      metrics: name → [tokens, …] of the drawn tokens, at least one.
    """
    scores = {"length": float(len(metrics["token"]))}
    if "entropy" not in metrics:
        return scores
    recorded = {name: np.asarray(metrics[name], float) for name in ("logprob", "entropy", "varentropy")}
    change = np.diff(recorded["entropy"]) if len(metrics["token"]) > 1 else np.zeros(1)
    m = {**metrics, **recorded, "z": surprise_z(metrics), "change": change}
    return scores | {name: float(score(m)) for name, (_, score) in ANSWER_SCORES.items()}


def sample_baselines(samples: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Return the uncertainty scores of a prompt from several answers to it; none for a single answer.

    Args:
      samples: text and Σ ln p of each answer.
    """
    if len(samples) < 2:
        return {}
    clusters = semantic.cluster_answers([text for text, _ in samples])
    logprobs = np.array([logprob for _, logprob in samples])
    return {
        "sequence_entropy": semantic.sequence_entropy(logprobs),
        "semantic_entropy": semantic.semantic_entropy(logprobs, clusters),
        "discrete_semantic_entropy": semantic.discrete_semantic_entropy(clusters),
        "answer_sets": float(clusters.max() + 1),
    }


def surprise_z(metrics: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return (surprisal − entropy) / √varentropy [tokens]; 0 where varentropy is below 1e-6 nats²."""
    entropy, varentropy = np.asarray(metrics["entropy"], float), np.asarray(metrics["varentropy"], float)
    spread = varentropy > 1e-6
    return np.where(spread, (-metrics["logprob"] - entropy) / np.sqrt(np.where(spread, varentropy, 1.0)), 0.0)


def _longest_run(flags: np.ndarray) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
