"""Which answers are right, as a confidence is to learn it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrace.confidence.features import Frames
from jaxtrace.errors import StudyError
from jaxtrace.grading.labels import Label, labels_for
from jaxtrace.grading.strings import Grade
from jaxtrace.tasks.reading import read_csv, read_jsonl
from jaxtrace.tracing.trace import Trace

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
      JaxtraceError: the file cannot be read, has a line that is no label, or none for any prompt.
    """
    records = None if file is None else list((read_csv if file.suffix == ".csv" else read_jsonl)(file))
    if file is not None and records and not isinstance(records[0][1], dict):
        raise StudyError(f"{file}, line {records[0][0]}: not an object; give prompt and label in each line")
    if records is not None and file is not None and not (records and "grade" in records[0][1]):
        named = {str(record.get("prompt")): _label(file, line, record) for line, record in records}
        answers = np.array([named.get(prompt, np.nan) for prompt in made.answers["prompt"]], float)
        if np.isnan(answers).all():
            known = ", ".join(made.answers["prompt"].head(3))
            raise StudyError(f"{file}: has no label of any prompt of the traces; their ids are such as {known}")
        return Truth(answers, answers[made.tokens["answer"]])
    graded = {label: labels_for(trace.rows, file) for label, trace in traces.items()}
    of = [graded[label][row] for label, row in zip(made.answers["trace"], made.answers["row"], strict=True)]
    answers = np.array([GRADES.get(one.grade, np.nan) for one in of], float)
    prompt_steps = {label: trace.prompt_steps for label, trace in traces.items()}
    tokens = answers[made.tokens["answer"]]
    for number, label in enumerate(of):
        if label.wrong_from is not None and label.wrong_to is not None:
            about = made.answers.iloc[number]
            inside = np.flatnonzero(made.tokens["answer"] == number)
            steps = made.tokens["step"].to_numpy()[inside] + prompt_steps[about["trace"]][about["row"]]
            tokens[inside] = _by_step(steps, label)
    return Truth(answers, tokens)


def _by_step(steps: np.ndarray, label: Label) -> np.ndarray:
    return np.where(steps < label.wrong_from, 1.0, np.where(steps <= label.wrong_to, 0.0, np.nan))


def _label(file: Path, line: int, record: dict[str, Any]) -> float:
    word = str(record.get("label")).lower()
    if word not in WORDS or "prompt" not in record:
        raise StudyError(f"{file}, line {line}: give a prompt's id as prompt, and true or false as its label")
    return float(WORDS[word])
