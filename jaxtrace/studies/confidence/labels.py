"""Labels that a confidence learns: which answers, and which of their tokens, are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrace.errors import StudyError, few, shown
from jaxtrace.grading.labels import labels_for
from jaxtrace.grading.strings import Grade
from jaxtrace.studies.confidence.features import FeatureTables
from jaxtrace.tasks.reading import read_csv, read_jsonl
from jaxtrace.traces.trace import Trace

WORDS = {"true": True, "1": True, "correct": True, "false": False, "0": False, "incorrect": False}
GRADES = {Grade.CORRECT: True, Grade.INCORRECT: False}


@dataclass(frozen=True)
class KnownLabels:
    """Labels of answers and tokens: 1.0 right, 0.0 wrong, NaN unknown.

    Attributes:
      answers: [answers].
      tokens: [tokens], label of the token's answer. Where a critic marked a wrong step, tokens before it are right,
        its own tokens wrong, and tokens after it unknown.
    """

    answers: np.ndarray
    tokens: np.ndarray


def known_labels(traces: Mapping[str, Trace], tables: FeatureTables, file: Path | None) -> KnownLabels:
    """Return the labels of answers and tokens.

    Args:
      file: output of `jaxtrace grade`, or a .csv or .jsonl file with the fields prompt (its id) and label (true or
        false, 1 or 0, correct or incorrect); None grades answers by rules on strings. Answers that are not graded, not
        attempted, or absent from the file are unknown.

    Raises:
      JaxtraceError: the file cannot be read, has a line that is no label, or labels none of the prompts; a file of
        prompt ids has an id twice, or an id with different answers.
    """
    if file is not None:
        records = list((read_csv if file.suffix == ".csv" else read_jsonl)(file))
        if bad := [line for line, record in records if not isinstance(record, dict)]:
            raise StudyError(f"{file}, line {bad[0]}: not an object; give prompt and label in each line")
        if not (records and "grade" in records[0][1]):
            answers = _labels_by_prompt(traces, tables, file, records)
            return KnownLabels(answers, answers[tables.tokens["answer"]])
    graded = {label: labels_for(trace.rows, file) for label, trace in traces.items()}
    labels = [graded[label][row] for label, row in zip(tables.answers["trace"], tables.answers["row"], strict=True)]
    answers = np.array([GRADES.get(label.grade, np.nan) for label in labels], float)
    tokens = answers[tables.tokens["answer"]]
    for number, label in enumerate(labels):
        if label.wrong_from is not None and label.wrong_to is not None:
            inside = np.flatnonzero(tables.tokens["answer"] == number)
            steps = tables.tokens["step"].to_numpy()[inside]
            tokens[inside] = np.where(steps < label.wrong_from, 1.0, np.where(steps <= label.wrong_to, 0.0, np.nan))
    return KnownLabels(answers, tokens)


def _labels_by_prompt(
    traces: Mapping[str, Trace], tables: FeatureTables, file: Path, records: Sequence[tuple[int, dict[str, Any]]]
) -> np.ndarray:
    """Return labels [answers] from a file that names prompts, each of which must have one answer."""
    by_prompt = {}
    for line, record in records:
        prompt, label = _parse_record(file, line, record)
        if prompt in by_prompt:
            raise StudyError(f"{file}, line {line}: a second label of {shown(prompt)}; keep one")
        by_prompt[prompt] = label
    texts = {label: [row.text for row in trace.rows] for label, trace in traces.items()}
    first_answers: dict[str, str] = {}
    for label, row, prompt in tables.answers[["trace", "row", "prompt"]].itertuples(index=False):
        if prompt in by_prompt and first_answers.setdefault(prompt, texts[label][row]) != texts[label][row]:
            raise StudyError(
                f"{file}: {shown(prompt)} has different answers in the traces, but one label; "
                "give labels that jaxtrace grade writes, or one trace at a time"
            )
    if not first_answers:
        known = few([*tables.answers["prompt"].head(3)])
        raise StudyError(f"{file}: has no label of the traces' prompts; use their ids, such as {known}")
    return np.array([by_prompt.get(prompt, np.nan) for prompt in tables.answers["prompt"]], float)


def _parse_record(file: Path, line: int, record: dict[str, Any]) -> tuple[str, float]:
    word = str(record.get("label")).lower()
    if word not in WORDS or "prompt" not in record:
        raise StudyError(f"{file}, line {line}: not a label; give a prompt's id as prompt, and true or false as label")
    return str(record["prompt"]), float(WORDS[word])
