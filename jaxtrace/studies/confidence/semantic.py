"""Semantic entropy: how much a model's answers to one prompt differ (Kuhn et al. 2023; Farquhar et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp, softmax
from scipy.stats import entropy

from jaxtrace.grading.words import normalize_text


def same_words(a: str, b: str) -> bool:
    """Return whether two answers differ only in case, accents, punctuation and articles."""
    return normalize_text(a) == normalize_text(b)


def cluster_answers(answers: Sequence[str], equivalent: Callable[[str, str], bool] = same_words) -> np.ndarray:
    """Return the number [answers] of each answer's cluster of equal answers, from 0.

    An answer joins the first cluster whose first member it is equivalent to.

    Args:
      equivalent: test of whether two answers mean the same; the source uses an entailment model in both directions.
    """
    firsts: list[str] = []
    clusters = []
    for answer in answers:
        cluster = next((i for i, first in enumerate(firsts) if equivalent(first, answer)), len(firsts))
        if cluster == len(firsts):
            firsts.append(answer)
        clusters.append(cluster)
    return np.array(clusters)


def semantic_entropy(logprobs: ArrayLike, clusters: np.ndarray) -> float:
    """Return −Σ p ln p over clusters, in nats.

    A cluster's p is the sum of its answers' probabilities, normalized over the samples.

    Args:
      logprobs: [samples], Σ ln p of each answer's tokens.
      clusters: [samples], cluster of each answer, from `cluster_answers`.
    """
    logprobs = np.asarray(logprobs, float)
    masses = [logsumexp(logprobs[clusters == cluster]) for cluster in range(clusters.max() + 1)]
    return float(entropy(softmax(masses)))


def discrete_semantic_entropy(clusters: np.ndarray) -> float:
    """Return −Σ p ln p over clusters, in nats; a cluster's p is its share of the samples [samples]."""
    return float(entropy(np.bincount(clusters)))


def sequence_entropy(logprobs: ArrayLike) -> float:
    """Return the Monte-Carlo entropy of the answer in nats: −mean of the samples' Σ ln p [samples]."""
    return float(-np.asarray(logprobs, float).mean())
