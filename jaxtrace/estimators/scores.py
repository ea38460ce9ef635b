"""Scores of answers, and of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from jaxtrace.errors import LackingError, StudyError
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace


@dataclass(frozen=True)
class Scores:
    """Scores of a trace's answers, in the order of its rows.

    Attributes:
      answers: [rows], one score per answer; NaN for a row that drew no token, or where the estimator is undefined.
      tokens: for each row [drawn tokens], see `Row.drawn_steps`; None if the estimator has no scores of tokens.
    """

    answers: Float[np.ndarray, " rows"]
    tokens: Sequence[Float[np.ndarray, " drawn"]] | None = None


def score_tokens(
    trace: Trace, of_row: Callable[[Row], Float[np.ndarray, " drawn"]], reduce: Callable[[np.ndarray], float]
) -> Scores:
    """Return scores of tokens, and a reduction of them for each answer.

    Args:
      of_row: function from a row to the scores of its drawn tokens.
      reduce: function from the scores of at least one token to the answer's.
    """
    tokens = [np.asarray(of_row(row), float) for row in trace.rows]
    answers = [float(reduce(values)) if len(values) else np.nan for values in tokens]
    return Scores(np.array(answers, float), tokens)


def drawn(row: Row, metric: str) -> Float[np.ndarray, "drawn ..."]:
    """Return a metric [drawn tokens, …] at the steps that drew a token, in float64."""
    return row.metrics[metric][row.drawn_steps].astype(float)


def checked_labels(labels: ArrayLike, count: int, where: str) -> Float[np.ndarray, " rows"]:
    """Return labels as 1.0 for right, 0.0 for wrong, NaN for unknown.

    Raises:
      StudyError: there is not one label for each of `count` answers, or a label is another value.
    """
    try:
        values = np.asarray(labels, float)
    except (TypeError, ValueError):
        raise StudyError(f"{where}: labels are not numbers; give 1 for right, 0 for wrong, NaN for unknown") from None
    if values.shape != (count,):
        given = len(values) if values.ndim == 1 else f"an array {[*values.shape]} of"
        raise StudyError(f"{where}: {given} labels for {count} answers; give one for each answer")
    if len(other := values[~(np.isnan(values) | (values == 0) | (values == 1))]):
        raise StudyError(f"{where}: a label is {other[0]:g}; give 1 for right, 0 for wrong, NaN for unknown")
    return values


def log_vocab(name: str, trace: Trace) -> float:
    """Return ln V, V the number of the model's logits; raises LackingError for a trace of an older jaxtrace."""
    if "vocab_size" not in trace.info:
        raise LackingError(f"{name}: has no size of the vocabulary, as of an older jaxtrace; trace it again")
    return float(np.log(trace.info["vocab_size"]))
