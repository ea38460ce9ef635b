"""Semantic entropy: how many different answers a model gives to one prompt (Kuhn et al. 2023; Farquhar et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp, softmax
from scipy.stats import entropy

from jaxtrace.grading.strings import normalised


def same_words(a: str, b: str) -> bool:
    """Whether two answers are the same but for case, accents, punctuation and articles."""
    return normalised(a) == normalised(b)


def clusters(answers: Sequence[str], equivalent: Callable[[str, str], bool] = same_words) -> np.ndarray:
    """Sets of equal answers: the number [answers] of the set that each is in, from 0.

    An answer joins the first set whose first member it is equivalent to.

    Args:
      answers: texts.
      equivalent: whether two mean the same; the source asks a model of entailment in both directions.
    """
    firsts: list[str] = []
    of = []
    for answer in answers:
        found = next((i for i, first in enumerate(firsts) if equivalent(first, answer)), len(firsts))
        if found == len(firsts):
            firsts.append(answer)
        of.append(found)
    return np.array(of)


def semantic_entropy(logprobs: ArrayLike, of: np.ndarray) -> float:
    """−Σ p ln p over sets in nats, p(set) ∝ Σ of its answers' probabilities, normalised over the samples.

    Args:
      logprobs: [samples], Σ ln p of the tokens of each.
      of: [samples], the set of each, from `clusters`.
    """
    logprobs = np.asarray(logprobs, float)
    return float(entropy(softmax([logsumexp(logprobs[of == one]) for one in range(of.max() + 1)])))


def discrete_semantic_entropy(of: np.ndarray) -> float:
    """−Σ p ln p over sets in nats, p(set) the share of the samples [samples] that is in it."""
    return float(entropy(np.bincount(of)))


def sequence_entropy(logprobs: ArrayLike) -> float:
    """Monte-Carlo entropy of the answer in nats: −mean of ln p of whole samples [samples]."""
    return float(-np.asarray(logprobs, float).mean())
