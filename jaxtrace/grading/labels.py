"""Labels of a trace's answers: a file of JSON lines, which `jaxtrace grade` writes, or a user's file of prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jaxtrace.errors import StudyError, few, shown
from jaxtrace.files import write_atomically
from jaxtrace.grading.strings import Grade, grade_answer
from jaxtrace.tasks.reading import read_csv, read_jsonl
from jaxtrace.traces.row import Row

RIGHT = {Grade.CORRECT: 1.0, Grade.INCORRECT: 0.0}
# Words of labels in files of prompts.
WORDS = {
    **dict.fromkeys(("true", "1", "correct"), Grade.CORRECT),
    **dict.fromkeys(("false", "0", "incorrect"), Grade.INCORRECT),
}
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


def label_of(row: Row, *, published_checker: bool = False) -> Label:
    """Return the label of a row's answer by its task's rule on strings; see `grade_answer`.

    Only the published checker reads a thought. An answer that ended in NaN or infinite logits is ungraded.
    """
    if row.stop == "not_finite":
        return Label(prompt=row.prompt.id, completion=digest(row.text), grade=Grade.UNGRADED, by="logits not finite")
    answer, cut_off = row.text if published_checker else row.answer, row.stop in CUT_OFF_STOPS
    graded = grade_answer(row.prompt, answer, published_checker=published_checker, cut_off=cut_off)
    return Label(prompt=row.prompt.id, completion=digest(row.text), grade=graded.grade, by=graded.by)


def labels_for(rows: Iterable[Row], file: Path | None = None) -> list[Label]:
    """Return the labels of some rows, in their order.

    Args:
      rows: rows of a trace.
      file: output of `jaxtrace grade`, or a .csv or .jsonl file with the fields prompt (its id) and label (true or
        false, 1 or 0, correct or incorrect), in which absent prompts have no label; None grades the answers by rules on
        strings.

    Raises:
      JaxtraceError: the file cannot be read, or has a line that is no label; a file of graded answers lacks a row; a
        file of prompts labels none of the rows, has an id twice, or an id with different answers.
    """
    if file is None:
        return [label_of(row) for row in rows]
    records = _records(file)
    if not (records and "grade" in records[0][1]):
        return _labels_by_prompt(rows, file, records)
    stored = {(label.prompt, label.completion): label for label in _read_graded(file, records)}
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
    return _read_graded(file, _records(file))


def write_labels(labels: Sequence[Label], file: Path) -> None:
    """Write one line of JSON per label; the file is complete or absent."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, "".join(f"{label.model_dump_json()}\n" for label in labels))


def digest(text: str) -> str:
    """Return the first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def right_or_wrong(labels: Iterable[Label]) -> Float[np.ndarray, " rows"]:
    """Return 1.0 for each answer that is right, 0.0 for wrong, NaN for one that is ungraded or not attempted."""
    return np.array([RIGHT.get(label.grade, np.nan) for label in labels], float)


def _records(file: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return the numbered lines of a file of labels."""
    records = [*(read_csv if file.suffix == ".csv" else read_jsonl)(file)]
    if bad := [line for line, record in records if not isinstance(record, dict)]:
        raise StudyError(f"{file}, line {bad[0]}: not an object; give prompt and label in each line")
    return records


def _read_graded(file: Path, records: Sequence[tuple[int, dict[str, Any]]]) -> list[Label]:
    labels = []
    for number, record in records:
        try:
            labels.append(Label.model_validate(record))
        except ValidationError:
            raise StudyError(f"{file}, line {number}: not a label; write the file again with jaxtrace grade") from None
    return labels


def _labels_by_prompt(rows: Iterable[Row], file: Path, records: Sequence[tuple[int, dict[str, Any]]]) -> list[Label]:
    """Return the labels of rows from a file that names prompts, each of which must have one answer."""
    grades: dict[str, Grade] = {}
    for line, record in records:
        word = str(record.get("label")).lower()
        if word not in WORDS or "prompt" not in record:
            raise StudyError(
                f"{file}, line {line}: not a label; give a prompt's id as prompt, and true or false as label"
            )
        if (prompt := str(record["prompt"])) in grades:
            raise StudyError(f"{file}, line {line}: a second label of {shown(prompt)}; keep one")
        grades[prompt] = WORDS[word]
    labels, answers = [], {}
    for row in rows:
        prompt, completion = row.prompt.id, digest(row.text)
        if prompt in grades and answers.setdefault(prompt, completion) != completion:
            raise StudyError(
                f"{file}: {shown(prompt)} has different answers in the traces, but one label; "
                "give labels that jaxtrace grade writes, or one trace at a time"
            )
        grade = grades.get(prompt, Grade.UNGRADED)
        labels.append(Label(prompt=prompt, completion=completion, grade=grade, by=file.name))
    if not answers:
        known = few([*dict.fromkeys(label.prompt for label in labels)], most=3)
        raise StudyError(f"{file}: has no label of the traces' prompts; use their ids, such as {known}")
    return labels
