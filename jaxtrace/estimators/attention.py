"""Estimators from the attention of the steps that draw an answer's tokens on their own positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np
from jaxtyping import Float

from jaxtrace.errors import LackingError
from jaxtrace.estimators.registry import estimator
from jaxtrace.estimators.scores import Scores, drawn, log_vocab
from jaxtrace.traces.layers import present_layers
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

LEAST_WEIGHT = 1e-12  # added to attention weights before the logarithm
LEAST_CONFIDENCE = 1e-10  # added to ln V − H
RAUQ = "Vazhentsev et al. 2025 (arXiv 2505.20045)"


@estimator(
    formula="−mean over heads of Σ ln(a + 1e-12), a the weight of an answer's position on itself, T − 1 positions; "
    "layer ⌊L/2⌋ + 1 of 1 … L, or the nearest with attention",
    source="Sriramanan et al. 2024 (LLM-Check)",
    metrics=("attention_self",),
)
def attention_score_gen_only(trace: Trace) -> Scores:
    """Return the attention score over the answer's positions that generation feeds: all but the last token's."""
    middle = trace.num_layers // 2 + 1
    _check_layers("attention_score_gen_only", trace, middle, middle)

    def of_row(row: Row) -> float:
        layer = middle_layer(row, "attention_self", trace.traced_layers)
        if layer is None:
            return np.nan
        return float(-np.log(drawn(row, "attention_self")[1:, layer] + LEAST_WEIGHT).mean(-1).sum())

    return Scores(np.array([of_row(row) if len(row.drawn_steps) else np.nan for row in trace.rows], float))


def middle_layer(row: Row, metric: str, layers: Sequence[int]) -> int | None:
    """Return the index of layer ⌊L/2⌋ + 1, or of the nearest layer with values of a metric; None if no layer has any.

    Args:
      layers: recorded layers, from 1; the last of them is L.
    """
    present = np.flatnonzero(present_layers(row, metric))
    if not len(present):
        return None
    distance = np.abs(np.array(layers)[present] - (layers[-1] // 2 + 1))
    return int(present[distance.argmin()])


@estimator(
    formula="max over layers of 1 − mean ln c; c(1) = p[token], c(t) = α p[token] + (1 − α) a c(t−1), a the weight of "
    "the query that draws token t on its own position, in the head with the largest mean a; layers ⌊L/3⌋ … ⌈2L/3⌉ of "
    "0 … L − 1",
    source=RAUQ,
    metrics=("attention_self", "logprob"),
)
def rauq(trace: Trace, *, alpha: float = 0.2) -> Scores:
    """Return RAUQ with probabilities.

    Args:
      alpha: weight of the token's own probability; its source uses 0.2, and 0.5 for instruct models.
    """
    return _rauq("rauq", trace, lambda row: np.exp(drawn(row, "logprob")), alpha)


@estimator(
    formula="as rauq, with ln V − H in the place of p[token]",
    source=RAUQ,
    metrics=("attention_self", "entropy"),
)
def rauq_entropy(trace: Trace, *, alpha: float = 0.8) -> Scores:
    """Return RAUQ with entropies.

    Args:
      alpha: weight of the token's own value; its source uses 0.8, and 0.9 for instruct models.
    """
    log_v = log_vocab("rauq_entropy", trace)
    return _rauq("rauq_entropy", trace, lambda row: log_v - drawn(row, "entropy") + LEAST_CONFIDENCE, alpha)


def _rauq(name: str, trace: Trace, confidences: Callable[[Row], Float[np.ndarray, " drawn"]], alpha: float) -> Scores:
    first, last = trace.num_layers // 3 + 1, min(ceil(2 * trace.num_layers / 3) + 1, trace.num_layers)
    _check_layers(name, trace, first, last)
    chosen = np.array([first <= layer <= last for layer in trace.traced_layers])

    def of_row(row: Row) -> float:
        weights = drawn(row, "attention_self")[1:, chosen & present_layers(row, "attention_self")]
        return recurrent_uncertainty(confidences(row), weights, alpha)

    return Scores(np.array([of_row(row) if len(row.drawn_steps) else np.nan for row in trace.rows], float))


def recurrent_uncertainty(
    confidences: Float[np.ndarray, " T"], weights: Float[np.ndarray, "T-1 layers heads"], alpha: float
) -> float:
    """Return RAUQ of one answer; NaN without a layer.

    Args:
      confidences: probability, or another confidence, of each token.
      weights: attention of the query that draws token t = 2 … T on its own position.
      alpha: weight of the token's own confidence.
    """
    if not weights.shape[1]:
        return np.nan
    best = weights.sum(0).argmax(-1)  # of equal heads the first, as for one token
    weights = np.take_along_axis(weights, best[None, :, None], 2)[..., 0]
    recurrent = [np.full(weights.shape[1], confidences[0])]
    for confidence, weight in zip(confidences[1:], weights, strict=True):
        recurrent.append(alpha * confidence + (1 - alpha) * weight * recurrent[-1])
    with np.errstate(divide="ignore"):
        return float((1 - np.log(recurrent).mean(0)).max())


def _check_layers(name: str, trace: Trace, first: int, last: int) -> None:
    """Raise LackingError unless all layers from the first to the last were recorded."""
    if not {*range(first, last + 1)} <= {*trace.layers_of("attention_self")}:
        layers = f"layer {first}" if first == last else f"every layer from {first} to {last}"
        raise LackingError(f"{name}: needs {layers}; trace it again with --layer-stride 1")
