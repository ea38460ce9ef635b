"""Answers to each prompt of a trace, and scores from several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from jaxtrace.engine.stop_strings import cut_pieces
from jaxtrace.estimators.equivalence import AnyComparison, compare_answers, comparer
from jaxtrace.estimators.scores import Scores, drawn
from jaxtrace.traces.requirements import require_generated
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

Entailment = Float[np.ndarray, "answers answers 3"]


@dataclass(frozen=True)
class Answer:
    """An answer of a trace, one of the samples of its prompt.

    Attributes:
      row: number of its row in the trace.
      prompt: text of the prompt.
      text: the answer without its thought; the whole completion if its thought is not closed.
      pieces: text of each drawn token; "" for the token that ends the answer, and none of a stop string.
      logprobs: [drawn tokens], the end token included; empty if the trace did not record them.
      entropies: [drawn tokens], likewise.
    """

    row: int
    prompt: str
    text: str
    pieces: Sequence[str]
    logprobs: Float[np.ndarray, " drawn"]
    entropies: Float[np.ndarray, " drawn"]

    @property
    def logprob(self) -> float:
        """Log-probability of the answer, in nats."""
        return float(self.logprobs.sum())

    @property
    def mean_logprob(self) -> float:
        """Log-probability of the answer per drawn token, in nats."""
        return float(self.logprobs.mean())


def answers_by_prompt(trace: Trace) -> list[list[Answer]]:
    """Return the answers that drew a token, those of one `Row.prompt_key` together."""
    prompts: dict[str, list[Answer]] = {}
    for number, row in enumerate(trace.rows):
        if len(row.drawn_steps):
            prompts.setdefault(row.prompt_key, []).append(_answer(number, row, trace.info.get("stop", ())))
    return list(prompts.values())


def score_prompts(
    trace: Trace, estimator: str, of_prompt: Callable[[Sequence[Answer]], float | Float[np.ndarray, " answers"]]
) -> Scores:
    """Return scores from all answers to each prompt; NaN for an answer without another one to its prompt.

    Args:
      estimator: name of the estimator, which errors show.
      of_prompt: function from two or more answers to their common score, or to the score of each.
    """
    answers = np.full(len(trace.rows), np.nan)
    for samples in _sampled(trace, estimator):
        answers[[answer.row for answer in samples]] = of_prompt(samples)
    return Scores(answers)


def score_compared(
    trace: Trace,
    estimator: str,
    comparison: AnyComparison,
    of_prompt: Callable[[Sequence[Answer], Entailment], float | Float[np.ndarray, " answers"]],
) -> Scores:
    """Return scores from all answers to each prompt and their comparison; NaN also where that is undecided.

    Args:
      estimator: name of the estimator, which errors show.
      comparison: comparison of two answers; a `Comparer` keeps its verdicts for further estimators.
      of_prompt: like that of `score_prompts`, also of the answers' `Comparer.compare` [answers, answers, 3].

    Raises:
      StudyError: the comparison fails.
    """
    prompts = _sampled(trace, estimator)
    texts = [(samples[0].prompt, [answer.text for answer in samples]) for samples in prompts]
    answers = np.full(len(trace.rows), np.nan)
    for samples, entailment in zip(prompts, compare_answers(texts, comparer(comparison), estimator), strict=True):
        if np.isfinite(entailment).all():
            answers[[answer.row for answer in samples]] = of_prompt(samples, entailment)
    return Scores(answers)


def answer_text(row: Row) -> str:
    """Return the answer of a row without its thought; the whole completion if its thought is not closed."""
    return row.text if row.answer is None else row.answer


def _answer(number: int, row: Row, stop: Sequence[str]) -> Answer:
    prompt = "".join(row.prompt_pieces) if row.prompt.text is None else row.prompt.text
    pieces = [row.pieces[step] for step in row.drawn_steps]
    if row.stop == "stop_token":
        pieces[-1] = ""
    elif row.stop == "stop_string":
        pieces = cut_pieces(pieces, stop)
    values = [drawn(row, name) if name in row.metrics else np.empty(0) for name in ("logprob", "entropy")]
    return Answer(number, prompt, answer_text(row), pieces, *values)


def _sampled(trace: Trace, estimator: str) -> list[list[Answer]]:
    require_generated(estimator, trace)
    return [answers for answers in answers_by_prompt(trace) if len(answers) > 1]
