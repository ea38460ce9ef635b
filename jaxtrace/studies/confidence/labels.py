"""Labels that a confidence learns: which answers, and which of their tokens, are right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxtrace.grading.labels import labels_for, right_or_wrong
from jaxtrace.studies.confidence.features import FeatureTables


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


def known_labels(tables: FeatureTables, file: Path | None) -> KnownLabels:
    """Return the labels of answers and tokens.

    Args:
      file: file of labels, see `labels_for`; None grades answers by rules on strings. Answers that are not graded, not
        attempted, or absent from a file of prompts are unknown.

    Raises:
      JaxtraceError: see `labels_for`.
    """
    labels = labels_for([row for run in tables.runs for row in run.rows], file)
    answers = right_or_wrong(labels)
    tokens = answers[tables.tokens["answer"]]
    for number, label in enumerate(labels):
        if label.wrong_from is not None and label.wrong_to is not None:
            inside = np.flatnonzero(tables.tokens["answer"] == number)
            steps = tables.tokens["step"].to_numpy()[inside]
            tokens[inside] = np.where(steps < label.wrong_from, 1.0, np.where(steps <= label.wrong_to, 0.0, np.nan))
    return KnownLabels(answers, tokens)
