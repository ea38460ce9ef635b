"""Scores of several answers to one prompt, as functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.sparse.csgraph import connected_components
from scipy.special import entr, logsumexp, softmax

SAR_TEMPERATURE = 0.001
LAPLACIAN_BOUND = 0.9  # eigenvalues below it count in `eccentricity`
HEAT_TIME = 0.3  # of the kernel of `kernel_language_entropy`


def sequence_entropy(logprobs: ArrayLike) -> float:
    """Return the Monte Carlo entropy of the answer in nats: −mean of the samples' ln p [samples]."""
    return float(-np.asarray(logprobs, float).mean())


def semantic_classes(equivalent: Bool[np.ndarray, "samples samples"]) -> Int[np.ndarray, " samples"]:
    """Return the number of each sample's class, from 0: the first whose first member it is equivalent to."""
    firsts: list[int] = []
    classes = []
    for sample in range(len(equivalent)):
        number = next((i for i, first in enumerate(firsts) if equivalent[first, sample]), len(firsts))
        if number == len(firsts):
            firsts.append(sample)
        classes.append(number)
    return np.array(classes, int)


def class_surprisal(logprobs: ArrayLike, classes: Int[np.ndarray, " samples"]) -> float:
    """Return −mean over samples of ln p of the sample's class, in nats.

    A class has the summed probability of its members; NaN in place of a member's ln p keeps it out of the sum.
    """
    logprobs = np.asarray(logprobs, float)
    masses = [logsumexp(logprobs[(classes == each) & ~np.isnan(logprobs)]) for each in range(classes.max() + 1)]
    return float(-np.take(masses, classes).mean())


def first_occurrences(texts: Sequence[str], classes: Int[np.ndarray, " samples"]) -> Bool[np.ndarray, " samples"]:
    """Return whether a sample is the first with its text in its class."""
    keys = list(zip(texts, classes.tolist(), strict=True))
    return np.array([keys.index(key) == i for i, key in enumerate(keys)])


def normalized_class_entropy(logprobs: ArrayLike, classes: Int[np.ndarray, " samples"]) -> float:
    """Return −Σ p ln p over classes, in nats; p is the members' summed probability, normalized over the samples."""
    logprobs = np.asarray(logprobs, float)
    masses = [logsumexp(logprobs[classes == each]) for each in range(classes.max() + 1)]
    return float(entr(softmax(masses)).sum())


def class_entropy(classes: Int[np.ndarray, " samples"]) -> float:
    """Return −Σ p ln p over classes, in nats; p is a class's share of the samples."""
    return float(entr(np.bincount(classes) / len(classes)).sum())


def number_of_sets(equivalent: Bool[np.ndarray, "samples samples"]) -> int:
    """Return the number of connected components of the graph whose edges join equivalent samples."""
    return int(connected_components(equivalent, directed=False)[0])


def sum_of_eigenvalues(similarity: Float[np.ndarray, "samples samples"]) -> float:
    """Return Σ max(0, 1 − λ) over the eigenvalues λ of the normalized Laplacian: a continuous number of sets."""
    eigenvalues = scipy.linalg.eigh(_normalized_laplacian(similarity), eigvals_only=True)
    return float(np.maximum(0, 1 - eigenvalues).sum())


def mean_distance(similarity: Float[np.ndarray, "samples samples"]) -> float:
    """Return 1 − the mean similarity over all pairs, a sample with itself included."""
    return float(1 - similarity.mean())


def eccentricity(similarity: Float[np.ndarray, "samples samples"], bound: float = LAPLACIAN_BOUND) -> float:
    """Return the norm of the samples' distances from their centre.

    Coordinates are the eigenvectors of the normalized Laplacian whose eigenvalues are below the bound.
    """
    eigenvalues, vectors = scipy.linalg.eigh(_normalized_laplacian(similarity))
    vectors = vectors[:, eigenvalues < bound]
    return float(np.linalg.norm(vectors - vectors.mean(0)))


def mean_pair_similarity(similarity: Float[np.ndarray, "samples samples"]) -> float:
    """Return the mean similarity over unordered pairs of different samples."""
    return float(similarity[np.triu_indices(len(similarity), 1)].mean())


def distances_from_others(similarity: Float[np.ndarray, "samples samples"]) -> Float[np.ndarray, " samples"]:
    """Return 1 − the mean similarity of each sample to the others, over both directions."""
    others = ~np.eye(len(similarity), dtype=bool)
    return 1 - ((similarity + similarity.T) / 2).mean(1, where=others)


def kernel_entropy(
    entails: Float[np.ndarray, "samples samples"], contradicts: Float[np.ndarray, "samples samples"]
) -> float:
    """Return the von Neumann entropy of the heat kernel of the samples' graph, divided by ln n: from 0 to 1.

    Weights are 1 for entailment and ½ for a neutral pair, summed over both directions; the kernel has unit diagonal.
    """
    entails, contradicts = entails + entails.T, contradicts + contradicts.T
    weights = entails + (2 - entails - contradicts) / 2
    kernel = scipy.linalg.expm(-HEAT_TIME * (np.diag(weights.sum(0)) - weights))
    scale = np.sqrt(np.diag(kernel))
    eigenvalues = scipy.linalg.eigvalsh(kernel / np.outer(scale, scale) / len(kernel))
    return float(entr(np.maximum(eigenvalues, 0)).sum() / np.log(len(kernel)))


def token_relevance(similarity: Float[np.ndarray, " tokens"]) -> Float[np.ndarray, " tokens"]:
    """Return 1 − similarity of an answer to itself without a token, normalized to 1; equal weights if all are 0."""
    relevance = 1 - similarity
    return relevance / relevance.sum() if relevance.any() else np.full(len(relevance), 1 / len(relevance))


def sentence_relevance(logprobs: ArrayLike, similarity: Float[np.ndarray, "samples samples"]) -> float:
    """Return mean_i of −ln(p_i + Σ_{j≠i} p_j similarity_ij / t), in nats, with t = `SAR_TEMPERATURE`.

    Args:
      logprobs: [samples], ln p of each sample.
    """
    logprobs = np.asarray(logprobs, float)
    weights = similarity / SAR_TEMPERATURE
    np.fill_diagonal(weights, 1.0)
    return float(-logsumexp(np.broadcast_to(logprobs, weights.shape), axis=1, b=weights).mean())


def density(logprob: float, logprobs: ArrayLike, similarity: Float[np.ndarray, " samples"]) -> float:
    """Return the mean similarity of samples to an answer, weighted by probabilities; the answer itself counts as 1.

    Args:
      logprob: mean ln p of the answer's tokens.
      logprobs: [samples], mean ln p of the tokens of each sample.
    """
    weights = np.exp([logprob, *np.asarray(logprobs, float)])
    return float(weights @ [1.0, *similarity] / weights.sum())


def _normalized_laplacian(similarity: Float[np.ndarray, "samples samples"]) -> Float[np.ndarray, "samples samples"]:
    """Return I − D^−½ W D^−½, where W is the symmetric part; a sample without any weight is a set of its own."""
    weights = (similarity + similarity.T) / 2
    weights = weights + np.diag((weights.sum(1) == 0).astype(float))
    scale = np.sqrt(weights.sum(1))
    return np.eye(len(weights)) - weights / np.outer(scale, scale)
