"""Uncertainty scores of an answer that need no training. A higher score means less certainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxtrace.estimators import known_estimators
from jaxtrace.studies.confidence import semantic
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
    clusters = semantic.cluster_answers([text for text, _ in samples])
    logprobs = np.array([logprob for _, logprob in samples])
    return {
        "sequence_entropy": semantic.sequence_entropy(logprobs),
        "semantic_entropy": semantic.semantic_entropy(logprobs, clusters),
        "discrete_semantic_entropy": semantic.discrete_semantic_entropy(clusters),
        "answer_sets": float(clusters.max() + 1),
    }
