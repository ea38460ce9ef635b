"""Uncertainty scores of an answer that need no training. A higher score means less certainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxtrace.studies.confidence import semantic

SPIKE = 1.0  # nats
BASELINE_TEXTS = {
    "length": "number of drawn tokens: the control, not an uncertainty",
    "msp": "−Σ ln p of the drawn tokens (maximum sequence probability)",
    "perplexity": "−mean ln p of the drawn tokens (logarithm of the perplexity)",
    "first_entropy": "entropy of the first step",
    "mean_entropy": "mean token entropy",
    "max_entropy": "largest token entropy",
    "p90_entropy": "90th percentile of token entropy",
    "mean_varentropy": "mean token varentropy",
    "max_varentropy": "largest token varentropy",
    "mean_surprise_z": "mean of (surprisal − entropy) / √varentropy",
    "max_surprise_z": "largest (surprisal − entropy) / √varentropy",
    "surprisal_gap": "mean of surprisal − entropy",
    "least_top1_prob": "1 − the smallest top-1 probability",
    "entropy_change": "mean |difference of entropy from step to step|",
    "entropy_rise": "largest rise of entropy from step to step",
    "spikes": f"share of steps with entropy above {SPIKE:g} nat",
    "spike_run": f"longest run of steps with entropy above {SPIKE:g} nat",
    "sequence_entropy": "−mean over samples of Σ ln p of the drawn tokens",
    "semantic_entropy": "entropy over clusters of equal answers, weighted by their probabilities",
    "discrete_semantic_entropy": "entropy over clusters of equal answers, by counts",
    "answer_sets": "number of clusters of equal answers",
}


def answer_baselines(metrics: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the uncertainty scores of one answer that its metrics allow; see `BASELINE_TEXTS`.

    Definitions follow lm-polygraph (Fadeeva et al. 2023) where it has them, except that the last token counts here
    whether or not it ends the text. Self-certainty, −KL(uniform ‖ p), is unavailable: it needs the mean of ln p over
    the vocabulary, which no probe records.

    Args:
      metrics: name → [tokens, …] of the drawn tokens, at least one.
    """
    scores = {"length": float(len(metrics["token"]))}
    if "entropy" not in metrics:
        return scores
    logprob, entropy, varentropy = (np.asarray(metrics[name], float) for name in ("logprob", "entropy", "varentropy"))
    z, change, spiking = surprise_z(metrics), np.diff(entropy), entropy > SPIKE
    return scores | {
        "msp": float(-logprob.sum()),
        "perplexity": float(-logprob.mean()),
        "first_entropy": float(entropy[0]),
        "mean_entropy": float(entropy.mean()),
        "max_entropy": float(entropy.max()),
        "p90_entropy": float(np.quantile(entropy, 0.9)),
        "mean_varentropy": float(varentropy.mean()),
        "max_varentropy": float(varentropy.max()),
        "mean_surprise_z": float(z.mean()),
        "max_surprise_z": float(z.max()),
        "surprisal_gap": float((-logprob - entropy).mean()),
        "least_top1_prob": float(1 - metrics["top1_prob"].min()),
        "entropy_change": float(np.abs(change).mean()) if len(change) else 0.0,
        "entropy_rise": float(change.max()) if len(change) else 0.0,
        "spikes": float(spiking.mean()),
        "spike_run": float(_longest_run(spiking)),
    }


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
