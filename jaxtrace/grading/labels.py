"""Grades of a trace's answers as a file of JSON lines, which other studies read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jaxtrace.errors import StudyError
from jaxtrace.grading.strings import Grade, graded
from jaxtrace.tasks.reading import read_jsonl
from jaxtrace.traces.trace import Row


class Label(BaseModel):
    """What is known of one answer.

    Attributes:
      prompt: the prompt's id.
      completion: a digest of the answer's text; with the id it says whose label it is.
      grade: of the whole answer.
      by: the rule, or the model asked, that said so; of what is ungraded, why.
      wrong_from, wrong_to: the first and the last step that draws a token of the first wrong step of its reasoning,
        counted from 0 at the first token drawn; None where no critic pointed at one.
      wrong_by: the critic, or why there is no wrong step from it; "" where none was asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    completion: str
    grade: Grade
    by: str
    wrong_from: int | None = Field(default=None, ge=0)
    wrong_to: int | None = Field(default=None, ge=0)
    wrong_by: str = ""


def label_of(row: Row, *, letter_anywhere: bool = False) -> Label:
    """The label of a row by its task's rule on strings, as `graded` takes them.

    What was drawn before the logits were NaN or infinite is no answer, and ungraded.
    """
    if row.stop == "not_finite":
        return Label(prompt=row.prompt.id, completion=digest(row.text), grade=Grade.UNGRADED, by="logits not finite")
    found = graded(row.prompt, row.text, letter_anywhere=letter_anywhere)
    return Label(prompt=row.prompt.id, completion=digest(row.text), grade=found.grade, by=found.by)


def labels_for(rows: Iterable[Row], file: Path | None = None) -> list[Label]:
    """The labels of some rows, in their order.

    Args:
      rows: of a trace.
      file: where labels were written; without it answers are graded by rules on strings.

    Raises:
      StudyError: the file cannot be read, or lacks a row.
    """
    if file is None:
        return [label_of(row) for row in rows]
    there = {(label.prompt, label.completion): label for label in read_labels(file)}
    found = []
    for row in rows:
        label = there.get((row.prompt.id, digest(row.text)))
        if label is None:
            raise StudyError(
                f"{file}: has no label of the answer to {row.prompt.id}; grade this trace with --out {file}"
            )
        found.append(label)
    return found


def read_labels(file: Path) -> list[Label]:
    """The labels of a file.

    Raises:
      JaxtraceError: it cannot be read, or has a line that is no label; the message names it.
    """
    labels = []
    for number, record in read_jsonl(file):
        try:
            labels.append(Label.model_validate(record))
        except ValidationError:
            raise StudyError(f"{file}, line {number}: not a label; write the file anew with jaxtrace grade") from None
    return labels


def write_labels(labels: Sequence[Label], file: Path) -> None:
    """Writes one line of JSON for each, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.tmp")
    beside.write_text("".join(f"{label.model_dump_json()}\n" for label in labels), encoding="utf-8")
    beside.replace(file)


def digest(text: str) -> str:
    """The first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
