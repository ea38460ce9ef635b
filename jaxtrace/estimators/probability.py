"""Estimators from the probabilities of the drawn tokens."""

from __future__ import annotations

import numpy as np

from jaxtrace.estimators.registry import estimator
from jaxtrace.estimators.scores import Scores, drawn, score_tokens
from jaxtrace.traces.trace import Trace


@estimator(formula="−Σ ln p[token]", source="Fadeeva et al. 2023 (arXiv 2311.07383)", metrics=("logprob",))
def maximum_sequence_probability(trace: Trace) -> Scores:
    """Return the negative log-probability of each answer, in nats."""
    return score_tokens(trace, lambda row: -drawn(row, "logprob"), np.sum)


@estimator(formula="−mean ln p[token]", source="Fomicheva et al. 2020 (arXiv 2005.10608)", metrics=("logprob",))
def perplexity(trace: Trace) -> Scores:
    """Return the mean negative log-probability of each answer's tokens, in nats: the logarithm of the perplexity."""
    return score_tokens(trace, lambda row: -drawn(row, "logprob"), np.mean)
