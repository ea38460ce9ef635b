"""What a model of a world knows, and how its uncertainty tells: every question asked, answered greedily."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxtrace.grading.labels import label_of
from jaxtrace.grading.strings import Grade
from jaxtrace.lab.phrases import lead_of
from jaxtrace.lab.settings import WorldSettings
from jaxtrace.lab.tasks import prompts
from jaxtrace.lab.world import World
from jaxtrace.model import Model
from jaxtrace.prompts import Prompt
from jaxtrace.settings.probes import Probes
from jaxtrace.statistics.intervals import Estimate, bootstrap
from jaxtrace.statistics.ranking import auroc
from jaxtrace.traces.trace import Row

WELL_KNOWN = 16  # a fact stated so often, or more
ANSWER_TOKENS = 24  # at most; an answer has 8 where the model has learnt to end it


@dataclass(frozen=True)
class Answers:
    """The answers to the questions of one sort; intervals resample people, each with all the questions about them.

    Attributes:
      questions: how many.
      right: share of right ones, with its interval.
      entropy: mean entropy of the first drawn token in nats, with its interval.
    """

    questions: int
    right: Estimate
    entropy: Estimate


@dataclass(frozen=True)
class Quiz:
    """What was found.

    Attributes:
      facts: (kind, sort) → answers given after the lead, "Answer: Bora Dan lives in", so that the first drawn token is
        the value's; kind is "fact" or "held-out", and the sort is that of `WorldSettings.sort`, the least stated first.
      sums: digits → answers.
      told_apart: kind → AUROC of the mean token entropy of whole answers, for facts never stated against those stated
        `WELL_KNOWN` times or more; without kinds that lack one of the two.
    """

    facts: dict[tuple[str, str], Answers]
    sums: dict[int, Answers]
    told_apart: dict[str, Estimate]


def quiz(model: Model, world: World, batch_size: int = 64) -> Quiz:
    """Asks a model of a world everything that `tasks.lab` asks of it but stories."""
    asked = prompts(world)
    facts, sums = [p for p in asked if "stated" in p.meta], [p for p in asked if p.meta["kind"] == "sum"]
    asked = [*(led(prompt) for prompt in facts), *facts, *sums]
    trace = model.generate(asked, max_new_tokens=ANSWER_TOKENS, probes=Probes.of("output"), batch_size=batch_size)
    return graded(world.settings, values=trace.rows[: len(facts)], whole=trace.rows[len(facts) :])


def led(prompt: Prompt) -> Prompt:
    """The question of a fact with the answer up to its value."""
    return replace(prompt, text=f"{prompt.text} {lead_of(prompt.meta['name'], prompt.meta['relation'])}")


def graded(settings: WorldSettings, values: Sequence[Row], whole: Sequence[Row]) -> Quiz:
    """The findings of traced answers.

    Args:
      settings: of the world.
      values: completions of facts from `led`.
      whole: completions of the questions of facts and of sums.
    """
    facts: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(values, key=lambda row: (row.prompt.meta["kind"], row.prompt.meta["stated"])):
        facts.setdefault((row.prompt.meta["kind"], settings.sort(row.prompt.meta["stated"])), []).append(row)
    sums: dict[int, list[Row]] = {}
    for row in whole:
        if row.prompt.meta["kind"] == "sum":
            sums.setdefault(row.prompt.meta["digits"], []).append(row)
    told_apart = {}
    for kind in dict.fromkeys(kind for kind, _ in facts):
        rows = [row for row in whole if row.prompt.meta["kind"] == kind]
        never = [row for row in rows if row.prompt.meta["stated"] == 0]
        known = [row for row in rows if row.prompt.meta["stated"] >= WELL_KNOWN]
        if never and known:
            entropies = [float(row.metrics["entropy"].mean()) for row in [*never, *known]]
            labels = [1] * len(never) + [0] * len(known)
            told_apart[kind] = auroc(labels, entropies, groups=_people([*never, *known]))
    return Quiz(
        facts={sort: _answers(rows) for sort, rows in facts.items()},
        sums={digits: _answers(rows) for digits, rows in sorted(sums.items())},
        told_apart=told_apart,
    )


def _answers(rows: Sequence[Row]) -> Answers:
    people = _people(rows)
    right = np.array([label_of(row).grade is Grade.CORRECT for row in rows], float)
    entropies = np.array([float(row.metrics["entropy"][0]) for row in rows])
    return Answers(len(rows), bootstrap(np.mean, right, groups=people), bootstrap(np.mean, entropies, groups=people))


def _people(rows: Sequence[Row]) -> list[str]:
    """Who each question is about; a sum is a group of its own."""
    return [row.prompt.meta.get("name", row.prompt.id) for row in rows]
