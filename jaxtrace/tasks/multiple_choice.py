"""TruthfulQA's multiple-choice form: questions with true and false answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtrace.errors import PromptError
from jaxtrace.tasks import truthfulqa
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.reading import read_jsonl, read_parquet

FILE = "multiple_choice/validation-00000-of-00001.parquet"
HUB = "hub"
TARGETS = ("mc1_targets", "mc2_targets")
BROKEN = (ValueError, KeyError, TypeError, AttributeError)  # what an entry of another form leads to


@dataclass(frozen=True)
class MultipleChoice:
    """A question whose answers are known to be true or false.

    Attributes:
      question: as it is asked.
      single: answer → whether it is true, with one true answer (MC1).
      several: likewise, with all reference answers (MC2 and MC3).
    """

    question: str
    single: Mapping[str, bool]
    several: Mapping[str, bool]

    @property
    def answers(self) -> tuple[str, ...]:
        """All answers, each once."""
        return tuple(dict.fromkeys((*self.single, *self.several)))


def load(source: str, limit: int | None = None) -> list[MultipleChoice]:
    """Loads questions with their answers.

    Args:
      source: mc_task.json as TruthfulQA's authors publish it, or its entries one to a line (.jsonl), which is a prompt
        file as well; the Parquet file of the hub; TruthfulQA.csv, whose best answer is MC1's true one, its correct and
        incorrect answers those of MC2; or "hub" to fetch the hub's.
      limit: how many at most; None for all.

    Raises:
      PromptError: the file cannot be fetched or read, or a question lacks a true or a false answer.
    """
    path = fetch(truthfulqa.REPO, FILE, "multiple choice") if source == HUB else Path(source)
    readers = {".json": _json, ".jsonl": _jsonl, ".parquet": _parquet, ".csv": _csv}
    if path.suffix not in readers:
        raise PromptError(f"{path}: no kind of choices ends in '{path.suffix}'; use {', '.join(readers)}, or '{HUB}'")
    found = list(itertools.islice(readers[path.suffix](path), limit))
    if not found:
        raise PromptError(f"{path}: holds no question; name a file that does")
    for number, one in enumerate(found, 1):
        if not all({True, False} <= set(answers.values()) for answers in (one.single, one.several)):
            raise PromptError(f"{path}, question {number}: lacks a true or a false answer; add one")
        if not all(text.strip() for text in (one.question, *one.answers)):
            raise PromptError(f"{path}, question {number}: an empty text; fill it in")
    return found


def _json(path: Path) -> Iterator[MultipleChoice]:
    try:
        yield from map(_entry, json.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, *BROKEN) as error:
        raise PromptError(f"{path}: not a file such as mc_task.json ({error}); name a copy of it") from None


def _jsonl(path: Path) -> Iterator[MultipleChoice]:
    for line, row in read_jsonl(path):
        try:
            yield _entry(row)
        except BROKEN as error:
            raise PromptError(f"{path}, line {line}: not an entry such as mc_task.json's ({error}); mend it") from None


def _entry(row: Mapping[str, Any]) -> MultipleChoice:
    single, several = ({str(text): bool(is_true) for text, is_true in row[key].items()} for key in TARGETS)
    return MultipleChoice(str(row["question"]).strip(), single, several)


def _parquet(path: Path) -> Iterator[MultipleChoice]:
    for number, row in read_parquet(path):
        if missing := [name for name in ("question", *TARGETS) if name not in row]:
            raise PromptError(f"{path}, row {number}: lacks '{missing[0]}'; name the hub's multiple_choice file")
        yield MultipleChoice(row["question"].strip(), *(_labelled(row[name]) for name in TARGETS))


def _labelled(targets: Mapping[str, Any]) -> dict[str, bool]:
    return {text: bool(label) for text, label in zip(targets["choices"], targets["labels"], strict=True)}


def _csv(path: Path) -> Iterator[MultipleChoice]:
    for prompt in truthfulqa.load(path, None):
        meta = prompt.meta
        false = dict.fromkeys(meta["incorrect_answers"], False)
        several = {**false, **dict.fromkeys(meta["correct_answers"], True)}
        yield MultipleChoice((prompt.text or "").strip(), {meta["best_answer"].strip(): True, **false}, several)
