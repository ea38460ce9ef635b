"""Uncertainty scores of an answer that need no training. A higher score means less certainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtrace.estimators import known_estimators, sample_scores
from jaxtrace.estimators.equivalence import match
from jaxtrace.traces.requirements import missing_metrics
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

# Estimators of one pass that the confidence is compared with.
ANSWER_SCORES = (
    *("length", "maximum_sequence_probability", "perplexity", "first_entropy", "mean_token_entropy"),
    *("max_token_entropy", "p90_entropy", "mean_varentropy", "max_varentropy", "mean_surprise_z", "max_surprise_z"),
    *("surprisal_gap", "least_top1_prob", "entropy_change", "entropy_rise", "spikes", "spike_run"),
)
BASELINE_TEXTS = {
    **{name: known_estimators()[name].formula for name in ANSWER_SCORES},
    "sequence_entropy": "−mean over samples of Σ ln p of the drawn tokens",
    "semantic_entropy": "entropy over clusters of equal answers, weighted by their probabilities",
    "discrete_semantic_entropy": "entropy over clusters of equal answers, by counts",
    "answer_sets": "number of clusters of equal answers",
}


def answer_baselines(row: Row, info: Mapping[str, Any]) -> dict[str, float]:
    """Return the uncertainty scores of one answer that its metrics allow; see `BASELINE_TEXTS`.

    Args:
      row: answer with at least one drawn token.
      info: `Trace.info` of its trace.
    """
    trace, known = Trace([row], dict(info)), known_estimators()
    allowed = [known[name] for name in ANSWER_SCORES if not missing_metrics(trace, known[name].metrics)]
    return {each.name: float(each.scores(trace, {}).answers[0]) for each in allowed}


def sample_baselines(samples: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Return the uncertainty scores of a prompt from several answers to it; none for a single answer.

    Args:
      samples: text and Σ ln p of each answer.
    """
    if len(samples) < 2:
        return {}
    texts, logprobs = zip(*samples, strict=True)
    equivalent = np.array([[match(a, b) for b in texts] for a in texts])
    classes = sample_scores.semantic_classes(equivalent)
    return {
        "sequence_entropy": sample_scores.sequence_entropy(logprobs),
        "semantic_entropy": sample_scores.normalized_class_entropy(logprobs, classes),
        "discrete_semantic_entropy": sample_scores.class_entropy(classes),
        "answer_sets": float(sample_scores.number_of_sets(equivalent)),
    }
