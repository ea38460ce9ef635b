"""Estimators from several answers to each prompt: entropies, and graphs of similar answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxtrace.estimators import sample_scores
from jaxtrace.estimators.answers import Answer, score_compared, score_prompts
from jaxtrace.estimators.equivalence import AnyComparison, are_equivalent
from jaxtrace.estimators.registry import estimator
from jaxtrace.estimators.scores import Scores
from jaxtrace.traces.trace import Trace

MALININ = "Malinin & Gales 2021 (arXiv 2002.07650)"
KUHN = "Kuhn et al. 2023 (arXiv 2302.09664)"
FARQUHAR = "Farquhar et al. 2024 (doi 10.1038/s41586-024-07421-0)"
LIN = "Lin et al. 2024 (arXiv 2305.19187)"


@estimator(formula="−mean over samples of Σ ln p[token]", source=MALININ, metrics=("logprob",), passes="samples")
def monte_carlo_sequence_entropy(trace: Trace) -> Scores:
    """Return the Monte Carlo entropy of the answers to each prompt, in nats."""
    return score_prompts(
        trace,
        "monte_carlo_sequence_entropy",
        lambda samples: sample_scores.sequence_entropy([answer.logprob for answer in samples]),
    )


@estimator(formula="−mean over samples of mean ln p[token]", source=MALININ, metrics=("logprob",), passes="samples")
def monte_carlo_normalized_sequence_entropy(trace: Trace) -> Scores:
    """Return the Monte Carlo entropy per token of the answers to each prompt, in nats; the end token counts."""
    return score_prompts(
        trace,
        "monte_carlo_normalized_sequence_entropy",
        lambda samples: sample_scores.sequence_entropy([answer.mean_logprob for answer in samples]),
    )


@estimator(
    formula="−mean over samples of ln Σ p[answer] over the sample's class",
    source=KUHN,
    metrics=("logprob",),
    passes="samples",
)
def semantic_entropy(trace: Trace, *, equivalence: AnyComparison = "match") -> Scores:
    """Return the Monte Carlo entropy of the classes of equivalent answers to each prompt, in nats.

    A class has the summed probability of its answers; equal answers count each time.

    Args:
      equivalence: comparison of two answers, which mean the same if each entails the other; a similarity must exceed ½.
    """
    return score_compared(
        trace,
        "semantic_entropy",
        equivalence,
        lambda samples, entailment: sample_scores.class_surprisal(
            [answer.logprob for answer in samples], _classes(entailment)
        ),
    )


@estimator(
    formula="−mean over samples of ln Σ p[answer] over the distinct answers of the sample's class",
    source=KUHN,
    metrics=("logprob",),
    passes="samples",
)
def semantic_entropy_unique(trace: Trace, *, equivalence: AnyComparison = "match") -> Scores:
    """Return the semantic entropy in which equal texts of a class count once, as in lm-polygraph, in nats.

    Args:
      equivalence: see `semantic_entropy`.
    """

    def of_prompt(samples: Sequence[Answer], entailment: np.ndarray) -> float:
        classes = _classes(entailment)
        first = sample_scores.first_occurrences([answer.text for answer in samples], classes)
        return sample_scores.class_surprisal(np.where(first, [answer.logprob for answer in samples], np.nan), classes)

    return score_compared(trace, "semantic_entropy_unique", equivalence, of_prompt)


@estimator(
    formula="−Σ p ln p over classes; p ∝ Σ exp(mean ln p[token]) over the class",
    source=FARQUHAR,
    metrics=("logprob",),
    passes="samples",
)
def semantic_entropy_normalized(trace: Trace, *, equivalence: AnyComparison = "match") -> Scores:
    """Return the entropy of the classes of equivalent answers to each prompt by length-normalized probability, in nats.

    Args:
      equivalence: see `semantic_entropy`.
    """
    return score_compared(
        trace,
        "semantic_entropy_normalized",
        equivalence,
        lambda samples, entailment: sample_scores.normalized_class_entropy(
            [answer.mean_logprob for answer in samples], _classes(entailment)
        ),
    )


@estimator(formula="−Σ f ln f over classes; f is the share of the samples", source=FARQUHAR, passes="samples")
def discrete_semantic_entropy(trace: Trace, *, equivalence: AnyComparison = "match") -> Scores:
    """Return the entropy of the classes of equivalent answers to each prompt by counts, in nats.

    Args:
      equivalence: see `semantic_entropy`.
    """
    return score_compared(
        trace,
        "discrete_semantic_entropy",
        equivalence,
        lambda _, entailment: sample_scores.class_entropy(_classes(entailment)),
    )


@estimator(formula="number of connected components of equivalent answers", source=LIN, passes="samples")
def num_sem_sets(trace: Trace, *, equivalence: AnyComparison = "match") -> Scores:
    """Return the number of sets of equivalent answers to each prompt.

    Args:
      equivalence: comparison of two answers, which share a set if entailment is likelier than contradiction both ways.
    """

    def of_prompt(_: Sequence[Answer], entailment: np.ndarray) -> float:
        agrees = entailment[..., 0] > entailment[..., 2]
        return sample_scores.number_of_sets(agrees & agrees.T)

    return score_compared(trace, "num_sem_sets", equivalence, of_prompt)


@estimator(formula="Σ max(0, 1 − λ) over eigenvalues of the normalized Laplacian", source=LIN, passes="samples")
def eig_val_laplacian(trace: Trace, *, similarity: AnyComparison = "rouge-l") -> Scores:
    """Return the continuous number of sets of similar answers to each prompt, from 1 to the number of answers.

    Args:
      similarity: comparison of two answers; a model of entailment gives the probability that the first entails the
        second. Both directions are averaged.
    """
    return score_compared(
        trace, "eig_val_laplacian", similarity, lambda _, nli: sample_scores.sum_of_eigenvalues(nli[..., 0])
    )


@estimator(formula="1 − mean similarity of all pairs", source=LIN, passes="samples")
def deg_mat(trace: Trace, *, similarity: AnyComparison = "rouge-l") -> Scores:
    """Return the mean distance of the answers to each prompt, that of an answer to itself included.

    Args:
      similarity: see `eig_val_laplacian`.
    """
    return score_compared(trace, "deg_mat", similarity, lambda _, nli: sample_scores.mean_distance(nli[..., 0]))


@estimator(formula="‖V − mean V‖ of eigenvectors of the Laplacian with λ < 0.9", source=LIN, passes="samples")
def eccentricity(trace: Trace, *, similarity: AnyComparison = "rouge-l") -> Scores:
    """Return how far the answers to each prompt are from their centre, in the Laplacian's coordinates.

    Args:
      similarity: see `eig_val_laplacian`.
    """
    return score_compared(trace, "eccentricity", similarity, lambda _, nli: sample_scores.eccentricity(nli[..., 0]))


@estimator(
    formula="−mean ROUGE-L of pairs of answers", source="Fomicheva et al. 2020 (arXiv 2005.10608)", passes="samples"
)
def lexical_similarity(trace: Trace) -> Scores:
    """Return the negative mean ROUGE-L of different answers to each prompt."""
    return score_compared(
        trace, "lexical_similarity", "rouge-l", lambda _, nli: -sample_scores.mean_pair_similarity(nli[..., 0])
    )


@estimator(
    formula="von Neumann entropy of the heat kernel exp(−0.3 L), divided by ln n",
    source="Nikitin et al. 2024 (arXiv 2405.20003)",
    passes="samples",
)
def kernel_language_entropy(trace: Trace, *, similarity: AnyComparison = "rouge-l") -> Scores:
    """Return the entropy of a kernel over the answers to each prompt, from 0 to 1.

    Args:
      similarity: comparison of two answers; a model of entailment gives weight 1 to entailment and ½ to neutral.
    """
    return score_compared(
        trace,
        "kernel_language_entropy",
        similarity,
        lambda _, nli: sample_scores.kernel_entropy(nli[..., 0], nli[..., 2]),
    )


def _classes(entailment: np.ndarray) -> np.ndarray:
    return sample_scores.semantic_classes(are_equivalent(entailment))
