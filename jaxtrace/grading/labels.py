"""Labels of a trace's answers as a file of JSON lines, which studies read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jaxtrace.errors import StudyError, shown
from jaxtrace.files import write_atomically
from jaxtrace.grading.strings import Grade, grade_answer
from jaxtrace.tasks.reading import read_jsonl
from jaxtrace.traces.row import Row

CUT_OFF_STOPS = ("length", "repeats")  # reasons for an end that the model did not choose


class Label(BaseModel):
    """Label of one answer.

    Attributes:
      prompt: id of the prompt.
      completion: digest of the completion, its thought included; with the id it identifies the answer.
      grade: grade of the whole answer.
      by: rule or model that gave the grade; for an ungraded answer, the reason.
      wrong_from, wrong_to: first and last step that draws a token of the first mistake, counted from 0 at the first
        drawn token, those of a thought included; None if no critic pointed at a mistake.
      wrong_by: critic, and the reason if it gave no wrong step; "" without a critic.
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
    """Return the label of a row's answer by its task's rule on strings; see `grade_answer`.

    A thought is not graded. An answer that ended in NaN or infinite logits is ungraded.
    """
    if row.stop == "not_finite":
        return Label(prompt=row.prompt.id, completion=digest(row.text), grade=Grade.UNGRADED, by="logits not finite")
    graded = grade_answer(row.prompt, row.answer, letter_anywhere=letter_anywhere, cut_off=row.stop in CUT_OFF_STOPS)
    return Label(prompt=row.prompt.id, completion=digest(row.text), grade=graded.grade, by=graded.by)


def labels_for(rows: Iterable[Row], file: Path | None = None) -> list[Label]:
    """Return the labels of some rows, in their order.

    Args:
      rows: rows of a trace.
      file: file of labels; None grades the answers by rules on strings.

    Raises:
      StudyError: the file cannot be read, or lacks a row.
    """
    if file is None:
        return [label_of(row) for row in rows]
    stored = {(label.prompt, label.completion): label for label in read_labels(file)}
    labels = []
    for row in rows:
        label = stored.get((row.prompt.id, digest(row.text)))
        if label is None:
            raise StudyError(
                f"{file}: has no label of the answer to {shown(row.prompt.id)}; grade this trace with --out {file}"
            )
        labels.append(label)
    return labels


def read_labels(file: Path) -> list[Label]:
    """Return the labels of a file.

    Raises:
      JaxtraceError: the file cannot be read, or has a line that is no label; the message names the line.
    """
    labels = []
    for number, record in read_jsonl(file):
        try:
            labels.append(Label.model_validate(record))
        except ValidationError:
            raise StudyError(f"{file}, line {number}: not a label; write the file again with jaxtrace grade") from None
    return labels


def write_labels(labels: Sequence[Label], file: Path) -> None:
    """Write one line of JSON per label; the file is complete or absent."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, "".join(f"{label.model_dump_json()}\n" for label in labels))


def digest(text: str) -> str:
    """Return the first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
