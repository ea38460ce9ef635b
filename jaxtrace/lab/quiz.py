"""Asks a model every question about its world, and summarises its greedy answers and their entropies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxtrace.grading.labels import label_of
from jaxtrace.grading.strings import Grade
from jaxtrace.lab.phrases import answer_lead
from jaxtrace.lab.settings import WorldSettings
from jaxtrace.lab.tasks import prompts
from jaxtrace.lab.world import World
from jaxtrace.model import Model
from jaxtrace.prompts import Prompt
from jaxtrace.settings.probes import Probes
from jaxtrace.statistics.intervals import Estimate, bootstrap
from jaxtrace.statistics.ranking import auroc
from jaxtrace.traces.row import Row

WELL_KNOWN = 16  # times that the text states a well-known fact, or more
ANSWER_TOKENS = 24  # maximum; a model that has learnt to end its answers draws 8


@dataclass(frozen=True)
class AnswerStatistics:
    """Statistics of the answers to one sort of question; intervals resample people, with all questions about each.

    Attributes:
      entropy: mean entropy of the first drawn token in nats, with its interval.
    """

    questions: int
    accuracy: Estimate
    entropy: Estimate


@dataclass(frozen=True)
class QuizResult:
    """Statistics of a model's answers to all questions about its world.

    Attributes:
      facts: statistics by (kind, frequency), the least stated facts first; kind is "fact" or "held-out", frequency is
        `WorldSettings.frequency`. The answers are drawn after the lead, "Answer: Bora Dan lives in", so that the first
        drawn token begins the value.
      sums: statistics by the number of digits.
      auroc: AUROC of whole answers' mean token entropy, for facts never stated against those stated `WELL_KNOWN` times
        or more, by kind. A kind without both is missing.
    """

    facts: dict[tuple[str, str], AnswerStatistics]
    sums: dict[int, AnswerStatistics]
    auroc: dict[str, Estimate]


def quiz(model: Model, world: World, batch_size: int = 64) -> QuizResult:
    """Ask a model all questions of the task `lab` about a world, except stories."""
    questions = prompts(world)
    facts = [prompt for prompt in questions if "stated" in prompt.meta]
    sums = [prompt for prompt in questions if prompt.meta["kind"] == "sum"]
    asked = [*(with_answer_lead(prompt) for prompt in facts), *facts, *sums]
    trace = model.generate(asked, max_new_tokens=ANSWER_TOKENS, probes=Probes.of("output"), batch_size=batch_size)
    return summarize(world.settings, values=trace.rows[: len(facts)], answers=trace.rows[len(facts) :])


def with_answer_lead(prompt: Prompt) -> Prompt:
    """Return the question about a fact with the answer up to its value."""
    return replace(prompt, text=f"{prompt.text} {answer_lead(prompt.meta['name'], prompt.meta['relation'])}")


def summarize(settings: WorldSettings, values: Sequence[Row], answers: Sequence[Row]) -> QuizResult:
    """Return the statistics of traced answers.

    Args:
      values: rows of the prompts from `with_answer_lead`.
      answers: rows of the questions about facts and sums, whole answers.
    """
    facts: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(values, key=lambda row: (row.prompt.meta["kind"], row.prompt.meta["stated"])):
        facts.setdefault((row.prompt.meta["kind"], settings.frequency(row.prompt.meta["stated"])), []).append(row)
    sums: dict[int, list[Row]] = {}
    for row in answers:
        if row.prompt.meta["kind"] == "sum":
            sums.setdefault(row.prompt.meta["digits"], []).append(row)
    auroc_by_kind = {}
    for kind in dict.fromkeys(kind for kind, _ in facts):
        rows = [row for row in answers if row.prompt.meta["kind"] == kind]
        never = [row for row in rows if row.prompt.meta["stated"] == 0]
        known = [row for row in rows if row.prompt.meta["stated"] >= WELL_KNOWN]
        if never and known:
            entropies = [float(row.metrics["entropy"].mean()) for row in [*never, *known]]
            labels = [1] * len(never) + [0] * len(known)
            auroc_by_kind[kind] = auroc(labels, entropies, groups=_people([*never, *known]))
    return QuizResult(
        facts={sort: _statistics(rows) for sort, rows in facts.items()},
        sums={digits: _statistics(rows) for digits, rows in sorted(sums.items())},
        auroc=auroc_by_kind,
    )


def _statistics(rows: Sequence[Row]) -> AnswerStatistics:
    people = _people(rows)
    right = np.array([label_of(row).grade is Grade.CORRECT for row in rows], float)
    entropies = np.array([float(row.metrics["entropy"][0]) for row in rows])
    return AnswerStatistics(
        len(rows),
        bootstrap(np.mean, right, bounds=(0.0, 1.0), groups=people),
        bootstrap(np.mean, entropies, groups=people),
    )


def _people(rows: Sequence[Row]) -> list[str]:
    """Return the person of each question; each sum is its own group."""
    return [row.prompt.meta.get("name", row.prompt.id) for row in rows]
