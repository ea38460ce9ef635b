"""Confidence in an answer and in its tokens, as pages and tables of a trace show it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AnswerConfidence:
    """Probabilities that the answer of one row is right.

    Attributes:
      answer: probability from the whole answer; NaN where the row drew no token.
      tokens: [steps] probability from each token alone; NaN at steps that drew no token.
    """

    answer: float
    tokens: np.ndarray
