"""Which answers are right, as a confidence is to learn it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrace.errors import StudyError
from jaxtrace.grading.labels import Label, labels_for
from jaxtrace.grading.strings import Grade
from jaxtrace.studies.confidence.features import Frames
from jaxtrace.tasks.reading import read_csv, read_jsonl
from jaxtrace.traces.trace import Trace

WORDS = {"true": True, "1": True, "correct": True, "false": False, "0": False, "incorrect": False}
GRADES = {Grade.CORRECT: True, Grade.INCORRECT: False}


@dataclass(frozen=True)
class Truth:
    """What is known of answers and their tokens: 1.0 right, 0.0 wrong, NaN unknown.

    Attributes:
      answers: [answers].
      tokens: [tokens], that of the answer; where a critic pointed at a wrong step, tokens before it are right, those
        of it wrong, and those after it unknown.
    """

    answers: np.ndarray
    tokens: np.ndarray


def truth(traces: Mapping[str, Trace], made: Frames, file: Path | None) -> Truth:
    """The labels of answers and tokens.

    Args:
      traces: what `made` was made of.
      made: their frames.
      file: what `jaxtrace grade` wrote, or a .csv or .jsonl file with the fields prompt (its id) and label (true or
        false, 1 or 0, correct or incorrect); without it answers are graded by rules on strings. Answers that are not
        graded, or not attempted, are unknown, as are those of prompts that are not in the file.

    Raises:
      JaxtraceError: the file cannot be read, has a line that is no label, or none for any prompt; one of one's own
        has an id twice, or one of different answers.
    """
    if file is not None:
        records = list((read_csv if file.suffix == ".csv" else read_jsonl)(file))
        if bad := [line for line, record in records if not isinstance(record, dict)]:
            raise StudyError(f"{file}, line {bad[0]}: not an object; give prompt and label in each line")
        if not (records and "grade" in records[0][1]):
            answers = _by_prompt(traces, made, file, records)
            return Truth(answers, answers[made.tokens["answer"]])
    graded = {label: labels_for(trace.rows, file) for label, trace in traces.items()}
    of = [graded[label][row] for label, row in zip(made.answers["trace"], made.answers["row"], strict=True)]
    answers = np.array([GRADES.get(one.grade, np.nan) for one in of], float)
    tokens = answers[made.tokens["answer"]]
    for number, label in enumerate(of):
        if label.wrong_from is not None and label.wrong_to is not None:
            inside = np.flatnonzero(made.tokens["answer"] == number)
            tokens[inside] = _by_step(made.tokens["step"].to_numpy()[inside], label)
    return Truth(answers, tokens)


def _by_prompt(
    traces: Mapping[str, Trace], made: Frames, file: Path, records: Sequence[tuple[int, dict[str, Any]]]
) -> np.ndarray:
    """[answers] of a file of one's own, which names prompts and not answers: there must be one answer to each."""
    named = {}
    for line, record in records:
        prompt, label = _label(file, line, record)
        if prompt in named:
            raise StudyError(f"{file}, line {line}: a second label of {prompt}; keep one")
        named[prompt] = label
    texts = {label: [row.text for row in trace.rows] for label, trace in traces.items()}
    first: dict[str, str] = {}
    for label, row, prompt in made.answers[["trace", "row", "prompt"]].itertuples(index=False):
        if prompt in named and first.setdefault(prompt, texts[label][row]) != texts[label][row]:
            raise StudyError(
                f"{file}: {prompt} has different answers in the traces, and a label by id is of one; "
                "give labels that jaxtrace grade writes, or one trace at a time"
            )
    if not first:
        known = ", ".join(made.answers["prompt"].head(3))
        raise StudyError(f"{file}: has no label of any prompt of the traces; their ids are such as {known}")
    return np.array([named.get(prompt, np.nan) for prompt in made.answers["prompt"]], float)


def _by_step(steps: np.ndarray, label: Label) -> np.ndarray:
    return np.where(steps < label.wrong_from, 1.0, np.where(steps <= label.wrong_to, 0.0, np.nan))


def _label(file: Path, line: int, record: dict[str, Any]) -> tuple[str, float]:
    word = str(record.get("label")).lower()
    if word not in WORDS or "prompt" not in record:
        raise StudyError(f"{file}, line {line}: give a prompt's id as prompt, and true or false as its label")
    return str(record["prompt"]), float(WORDS[word])
