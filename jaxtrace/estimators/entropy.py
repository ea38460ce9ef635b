"""Estimators from the entropies of the steps that draw an answer's tokens. All count, that of a stop token among them.

lm-polygraph's mean over tokens counts the stop token too; only its lists per token exclude the last token.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from jaxtrace.estimators.registry import estimator
from jaxtrace.estimators.scores import Scores, drawn, score_tokens
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

SPIKE = 1.0  # nats
FOMICHEVA, POLYGRAPH = "Fomicheva et al. 2020 (arXiv 2005.10608)", "Fadeeva et al. 2023 (arXiv 2311.07383)"


@estimator(formula="mean H", source=FOMICHEVA, metrics=("entropy",))
def mean_token_entropy(trace: Trace) -> Scores:
    """Return the mean entropy of the next-token distributions, in nats."""
    return score_tokens(trace, _entropy, np.mean)


@estimator(formula="max H", source=POLYGRAPH, metrics=("entropy",))
def max_token_entropy(trace: Trace) -> Scores:
    """Return the largest entropy of the next-token distributions, in nats."""
    return score_tokens(trace, _entropy, np.max)


@estimator(formula="H of the first step", metrics=("entropy",))
def first_entropy(trace: Trace) -> Scores:
    """Return the entropy of the step that draws the first token, in nats."""
    return score_tokens(trace, _entropy, lambda values: values[0])


@estimator(formula="90th percentile of H", metrics=("entropy",))
def p90_entropy(trace: Trace) -> Scores:
    """Return the 90th percentile of the steps' entropies, in nats."""
    return score_tokens(trace, _entropy, lambda values: np.quantile(values, 0.9))


@estimator(formula="mean varentropy", metrics=("varentropy",))
def mean_varentropy(trace: Trace) -> Scores:
    """Return the mean varentropy of the steps, in nats²."""
    return score_tokens(trace, lambda row: drawn(row, "varentropy"), np.mean)


@estimator(formula="max varentropy", metrics=("varentropy",))
def max_varentropy(trace: Trace) -> Scores:
    """Return the largest varentropy of the steps, in nats²."""
    return score_tokens(trace, lambda row: drawn(row, "varentropy"), np.max)


@estimator(formula="mean absolute H(t) − H(t−1); 0 for one token", metrics=("entropy",))
def entropy_change(trace: Trace) -> Scores:
    """Return the mean absolute change of entropy from step to step, in nats."""
    return score_tokens(trace, _entropy, lambda values: np.abs(_changes(values)).mean())


@estimator(formula="max (H(t) − H(t−1)); 0 for one token", metrics=("entropy",))
def entropy_rise(trace: Trace) -> Scores:
    """Return the largest rise of entropy from step to step, in nats."""
    return score_tokens(trace, _entropy, lambda values: _changes(values).max())


@estimator(formula=f"share of steps with H > {SPIKE:g} nat", metrics=("entropy",))
def spikes(trace: Trace) -> Scores:
    """Return the share of steps with an entropy above 1 nat."""
    return score_tokens(trace, _entropy, lambda values: (values > SPIKE).mean())


@estimator(formula=f"longest run of steps with H > {SPIKE:g} nat", metrics=("entropy",))
def spike_run(trace: Trace) -> Scores:
    """Return the length of the longest run of steps with an entropy above 1 nat."""
    return score_tokens(trace, _entropy, lambda values: _longest_run(values > SPIKE))


def _entropy(row: Row) -> Float[np.ndarray, " drawn"]:
    return drawn(row, "entropy")


def _changes(values: Float[np.ndarray, " drawn"]) -> Float[np.ndarray, " changes"]:
    return np.diff(values) if len(values) > 1 else np.zeros(1)


def _longest_run(flags: Bool[np.ndarray, " drawn"]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
