"""MC1, MC2 and MC3: which given answers a model finds likely (Lin et al. 2021; MC3 as in DoLa's code)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import StudyError
from jaxtrace.model import Model
from jaxtrace.prompts import Prompt
from jaxtrace.settings.probes import Probes
from jaxtrace.settings.prompt import StartMode
from jaxtrace.statistics.intervals import estimate_columns, prompt_means
from jaxtrace.studies._shared.progress import OnCount
from jaxtrace.studies._shared.result import EXAMPLES, Table
from jaxtrace.studies.dynamics.settings import TEMPLATE
from jaxtrace.tasks.multiple_choice import MultipleChoice

SCORES = ("mc1", "mc2", "mc3")


@dataclass(frozen=True)
class Continuation:
    """Tokens of a text that ends with an answer.

    Attributes:
      is_answer: True for each token that reaches into the answer.
    """

    tokens: tuple[int, ...]
    is_answer: tuple[bool, ...]


def continuation(tokenizer: Tokenizer, before: str, answer: str, bos: StartMode = "auto") -> Continuation:
    """Encode `before` + `answer` as one text; tokens that end past `before` belong to the answer.

    A token that spans the boundary belongs to the answer; special tokens, which cover no text, never do.
    """
    encoded = tokenizer.encode_text(before + answer, bos=bos)
    return Continuation(tuple(encoded.ids), tuple(end > len(before) for end in encoded.ends))


def answer_logprobs(
    model: Model,
    questions: Sequence[MultipleChoice],
    *,
    primer: str = "",
    template: str = TEMPLATE,
    bos: StartMode = "auto",
    batch_size: int = 8,
    on_answers: OnCount = lambda *_: None,
) -> list[dict[str, float]]:
    """Return, for each question, answer → total log-probability (nats) of its tokens after the question.

    Args:
      primer: text before every question, such as worked examples.
      template: template of a question; a space and the answer follow it. No chat template is used.
      bos: start token before every text, as for `Model.score`.
      on_answers: callback with the numbers of answers scored and in all.

    Raises:
      StudyError: the model has no tokenizer.
      PromptError: a text is longer than the context.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise StudyError(f"{model.name}: has no tokenizer, which answers need; drop --choices, or take another model")
    texts, continuations = [], []
    for i, question in enumerate(questions):
        before = primer + template.replace("{question}", question.question)
        for answer in question.answers:
            continuations.append(continuation(tokenizer, before, f" {answer}", bos))
            texts.append(Prompt(tokens=continuations[-1].tokens, id=f"choice-{i:04d}"))
    scored = 0

    def on_progress(texts_added: int, *_: float) -> None:
        nonlocal scored
        scored += texts_added
        on_answers(scored, len(texts))

    on_answers(0, len(texts))
    rows = model.score(texts, probes=Probes.of("output"), batch_size=batch_size, on_progress=on_progress).rows
    totals = iter(
        [_total(row.metrics["logprob"], text.is_answer) for row, text in zip(rows, continuations, strict=True)]
    )
    return [{answer: next(totals) for answer in question.answers} for question in questions]


def _total(logprob: np.ndarray, is_answer: Sequence[bool]) -> float:
    """Sum over the answer's tokens; `logprob[t]` belongs to the token after position t."""
    return float(np.sum(logprob[:-1][np.array(is_answer[1:])], dtype=float))


def choice_scores(question: MultipleChoice, logprobs: Mapping[str, float]) -> dict[str, float]:
    """Return the three scores of a question, each from 0 to 1.

    Args:
      logprobs: log-probability of each answer, nats.

    Returns:
      mc1: 1 if MC1's true answer is likelier than each false one, else 0. mc2: the true answers' share of the
      probability of all. mc3: the share of the true answers that are likelier than every false one. chance: mc1 of a
      guess. The three scores are NaN if the log-probability of some answer is not finite.
    """
    chance = sum(question.single.values()) / len(question.single)
    if not all(np.isfinite(logprobs[text]) for text in question.answers):
        return {**dict.fromkeys(SCORES, np.nan), "chance": chance}

    def split(answers: Mapping[str, bool]) -> tuple[np.ndarray, np.ndarray]:
        values, is_true = np.array([logprobs[text] for text in answers]), np.array([*answers.values()], bool)
        return values[is_true], values[~is_true]

    single_true, single_false = split(question.single)
    true, false = split(question.several)
    top = max(true.max(), false.max())
    weight_true, weight_false = np.exp(true - top).sum(), np.exp(false - top).sum()
    return {
        "mc1": float(single_true.max() > single_false.max()),
        "mc2": float(weight_true / (weight_true + weight_false)),
        "mc3": float(np.mean(true > false.max())),
        "chance": chance,
    }


def scored_choices(
    model: Model,
    questions: Sequence[MultipleChoice],
    *,
    primer: str = "",
    template: str = TEMPLATE,
    bos: StartMode = "auto",
    on_answers: OnCount = lambda *_: None,
) -> pd.DataFrame:
    """Return a row per question: question, mc1, mc2, mc3, chance; see `answer_logprobs`."""
    settings = {"primer": primer, "template": template, "bos": bos, "on_answers": on_answers}
    logprobs = answer_logprobs(model, questions, **settings)
    return pd.DataFrame(
        [
            {"question": question.question, **choice_scores(question, of_answers)}
            for question, of_answers in zip(questions, logprobs, strict=True)
        ]
    )


def question_table(choices: Mapping[str, pd.DataFrame]) -> Table:
    """Return the scores of every question."""
    frames = [frame.assign(model=model)[["model", *frame.columns]] for model, frame in choices.items()]
    return Table(
        pd.concat(frames, ignore_index=True),
        "Scores of every question that was traced: mc1, mc2 and mc3 as in choices; chance is mc1 of a guess.",
        preview=EXAMPLES,
    )


def unscored_notes(choices: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return a note on each model that has questions without scores."""
    counts = {model: int(frame["mc1"].isna().sum()) for model, frame in choices.items()}
    return [
        f"{model}: {count} of {len(choices[model])} questions have an answer whose log-probability is not finite; they "
        "are excluded from choices and choices_auroc."
        for model, count in counts.items()
        if count
    ]


def choice_table(choices: Mapping[str, pd.DataFrame], *, seed: int, resamples: int) -> Table:
    """Return mean scores of models with intervals over questions."""
    rows = []
    for model, frame in choices.items():
        means = prompt_means(frame[list(SCORES)], frame["question"], seed=seed, resamples=resamples, bounds=(0.0, 1.0))
        chances = frame.loc[frame["mc1"].notna(), "chance"]
        rows.append({"model": model, **estimate_columns(means), "mc1_chance": chances.mean(), "n": len(chances)})
    return Table(
        pd.DataFrame(rows),
        "Answers by total log-probability: mc1, the share of questions whose true answer is likelier than every false "
        "one; mc2, the true answers' share of the probability of all; mc3, the share of true answers likelier than "
        "every false one. 95 % intervals over n questions; mc1_chance is mc1 of a guess.",
    )
