"""TruthfulQA's multiple-choice form: questions with true and false answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jaxtrace.documents import MAX_JSON, decode_json, read_bytes
from jaxtrace.errors import PromptError
from jaxtrace.tasks import truthfulqa
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.reading import DataRow, checked_row, read_jsonl, read_parquet

FILE = "multiple_choice/validation-00000-of-00001.parquet"
HUB = "hub"
ENTRY = "not an entry such as mc_task.json's"
Truth = Literal[0, 1] | bool


@dataclass(frozen=True)
class MultipleChoice:
    """Question whose answers are known to be true or false.

    Attributes:
      question: text of the question.
      single: answer → whether it is true; one answer is true (MC1).
      several: answer → whether it is true, for all reference answers (MC2 and MC3).
    """

    question: str
    single: Mapping[str, bool]
    several: Mapping[str, bool]

    @property
    def answers(self) -> tuple[str, ...]:
        """All answers, without repetition."""
        return tuple(dict.fromkeys((*self.single, *self.several)))


def load(source: str, limit: int | None = None) -> list[MultipleChoice]:
    """Return questions with their answers.

    Args:
      source: mc_task.json as TruthfulQA's authors publish it, or its entries one per line (.jsonl), which is a prompt
        file too; the hub's Parquet file; TruthfulQA.csv, whose best answer is MC1's true one and whose correct and
        incorrect answers are MC2's; or "hub" to fetch the hub's file.
      limit: maximum number; None for all.

    Raises:
      PromptError: the file cannot be fetched or read, or a question lacks a true or a false answer.
    """
    path = fetch(truthfulqa.REPO, FILE, "multiple choice") if source == HUB else Path(source)
    readers = {".json": _json, ".jsonl": _jsonl, ".parquet": _parquet, ".csv": _csv}
    if path.suffix not in readers:
        raise PromptError(
            f"{path}: no kind of choices ends in '{path.suffix}'; give one of {', '.join(readers)}, or '{HUB}'"
        )
    questions = list(itertools.islice(readers[path.suffix](path), limit))
    if not questions:
        raise PromptError(f"{path}: holds no question; name a file that does")
    for number, question in enumerate(questions, 1):
        if not all({True, False} <= set(answers.values()) for answers in (question.single, question.several)):
            raise PromptError(f"{path}, question {number}: lacks a true or a false answer; add one")
        if not all(text.strip() for text in (question.question, *question.answers)):
            raise PromptError(f"{path}, question {number}: an empty text; fill it in")
    return questions


def _json(path: Path) -> Iterator[MultipleChoice]:
    problem, advice = "not a file such as mc_task.json", "name a copy of it"
    try:
        rows = decode_json(read_bytes(path, MAX_JSON, PromptError, advice))
    except ValueError as error:
        raise PromptError(f"{path}: {problem} ({error}); {advice}") from None
    for row in rows if isinstance(rows, list) else [rows]:
        yield _choices(checked_row(_Entry, row, str(path), problem, advice))


def _jsonl(path: Path) -> Iterator[MultipleChoice]:
    for line, row in read_jsonl(path):
        yield _choices(checked_row(_Entry, row, f"{path}, line {line}", ENTRY, "correct it"))


class _Entry(DataRow):
    question: str
    mc1_targets: dict[str, Truth]
    mc2_targets: dict[str, Truth]


def _choices(entry: _Entry) -> MultipleChoice:
    single, several = (
        {text: bool(is_true) for text, is_true in targets.items()} for targets in (entry.mc1_targets, entry.mc2_targets)
    )
    return MultipleChoice(entry.question.strip(), single, several)


class _Targets(DataRow):
    choices: list[str]
    labels: list[Truth]


class _Row(DataRow):
    question: str
    mc1_targets: _Targets
    mc2_targets: _Targets


def _parquet(path: Path) -> Iterator[MultipleChoice]:
    for number, row in read_parquet(path, _Row, ENTRY, "name the hub's multiple_choice file"):
        try:
            single, several = (
                dict(zip(targets.choices, map(bool, targets.labels), strict=True))
                for targets in (row.mc1_targets, row.mc2_targets)
            )
        except ValueError:
            raise PromptError(f"{path}, row {number}: the choices and labels differ in number; correct them") from None
        yield MultipleChoice(row.question.strip(), single, several)


def _csv(path: Path) -> Iterator[MultipleChoice]:
    for prompt in truthfulqa.load(path, None):
        meta = prompt.meta
        false = dict.fromkeys(meta["incorrect_answers"], False)
        several = {**false, **dict.fromkeys(meta["correct_answers"], True)}
        yield MultipleChoice((prompt.text or "").strip(), {meta["best_answer"].strip(): True, **false}, several)
