"""Estimators from the probabilities of the drawn tokens. All drawn tokens count, a stop token among them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from jaxtrace.estimators.registry import estimator
from jaxtrace.estimators.scores import Scores, drawn, score_tokens
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

LEAST_VARENTROPY = 1e-6  # nats²; below it a step counts as one without spread


@estimator(formula="number of drawn tokens T: a control, not an uncertainty")
def length(trace: Trace) -> Scores:
    """Return the number of drawn tokens, with which every sum over tokens grows."""
    counts = [len(row.drawn_steps) for row in trace.rows]
    return Scores(np.array([count or np.nan for count in counts], float))


@estimator(formula="−Σ ln p[token]", source="Fadeeva et al. 2023 (arXiv 2311.07383)", metrics=("logprob",))
def maximum_sequence_probability(trace: Trace) -> Scores:
    """Return the negative log-probability of each answer, in nats."""
    return score_tokens(trace, _surprisal, np.sum)


@estimator(formula="−mean ln p[token]", source="Fomicheva et al. 2020 (arXiv 2005.10608)", metrics=("logprob",))
def perplexity(trace: Trace) -> Scores:
    """Return the mean negative log-probability of each answer's tokens, in nats: the logarithm of the perplexity."""
    return score_tokens(trace, _surprisal, np.mean)


@estimator(formula="mean (−ln p[token] − H)", metrics=("logprob", "entropy"))
def surprisal_gap(trace: Trace) -> Scores:
    """Return the mean excess of the drawn tokens' surprisal over its expectation, the entropy, in nats."""
    return score_tokens(trace, lambda row: _surprisal(row) - drawn(row, "entropy"), np.mean)


@estimator(formula="mean (−ln p[token] − H) / √varentropy", metrics=("logprob", "entropy", "varentropy"))
def mean_surprise_z(trace: Trace) -> Scores:
    """Return the mean standardised surprisal of the drawn tokens; see `surprise_z`."""
    return score_tokens(trace, _drawn_surprise_z, np.mean)


@estimator(formula="max (−ln p[token] − H) / √varentropy", metrics=("logprob", "entropy", "varentropy"))
def max_surprise_z(trace: Trace) -> Scores:
    """Return the largest standardised surprisal of the drawn tokens; see `surprise_z`."""
    return score_tokens(trace, _drawn_surprise_z, np.max)


@estimator(formula="1 − min top-1 probability", metrics=("top1_prob",))
def least_top1_prob(trace: Trace) -> Scores:
    """Return 1 − the smallest top-1 probability of the steps."""
    return score_tokens(trace, lambda row: 1 - drawn(row, "top1_prob"), np.max)


def surprise_z(metrics: Mapping[str, np.ndarray]) -> Float[np.ndarray, " steps"]:
    """Return (surprisal − entropy) / √varentropy of each step; 0 where varentropy is below 1e-6 nats².

    Args:
      metrics: "logprob", "entropy" and "varentropy" [steps].
    """
    logprob, entropy, varentropy = (np.asarray(metrics[x], float) for x in ("logprob", "entropy", "varentropy"))
    spread = varentropy > LEAST_VARENTROPY
    return np.where(spread, (-logprob - entropy) / np.sqrt(np.where(spread, varentropy, 1.0)), 0.0)


def _surprisal(row: Row) -> Float[np.ndarray, " drawn"]:
    return -drawn(row, "logprob")


def _drawn_surprise_z(row: Row) -> Float[np.ndarray, " drawn"]:
    return surprise_z({name: drawn(row, name) for name in ("logprob", "entropy", "varentropy")})
