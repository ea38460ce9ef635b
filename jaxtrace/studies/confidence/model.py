"""Trained confidence: from features to the probability that an answer, or the answer of a token, is right."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import expit

from jaxtrace.errors import StudyError
from jaxtrace.studies.confidence.features import feature_tables, probes_of
from jaxtrace.studies.confidence.scores import with_estimators
from jaxtrace.traces.confidence import AnswerConfidence
from jaxtrace.traces.trace import Trace

FAR = 4.0  # standard deviations


@dataclass(frozen=True)
class FittedClassifier:
    """Logistic regression, or a network with one hidden layer of rectified linear units.

    Attributes:
      features: names of the features, in the order of the weights.
      hidden: units of the hidden layer; 0 for logistic regression.
      arrays: "mean" and "sd" [features] of the training rows, "out.kernel" [features or hidden, 1], "out.bias" [1], and
        for a network "hidden.kernel" [features, hidden] and "hidden.bias" [hidden]; float32.
    """

    features: tuple[str, ...]
    hidden: int
    arrays: dict[str, np.ndarray]

    @property
    def estimators(self) -> list[str]:
        """Names of the features that are scores of estimators; those made of metrics have a point, as entropy.mean."""
        return [name for name in self.features if "." not in name]

    def probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the probability that each row is right, float64 [rows].

        Raises:
          StudyError: a feature is missing; the message names the probes that record it.
        """
        x = self._standardize(frame)
        if self.hidden:
            x = np.maximum(x @ self.arrays["hidden.kernel"] + self.arrays["hidden.bias"], 0)
        return expit((x @ self.arrays["out.kernel"] + self.arrays["out.bias"])[:, 0])

    def out_of_range(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the share [rows] of features further than `FAR` standard deviations from the training's mean."""
        return (np.abs(self._standardize(frame)) > FAR).mean(1)

    def _standardize(self, frame: pd.DataFrame) -> np.ndarray:
        if missing := [name for name in self.features if name not in frame]:
            probes = ",".join(probes_of(missing))
            raise StudyError(f"the trace lacks the feature {missing[0]}; trace again with --probes that hold {probes}")
        return standardize(frame[list(self.features)].to_numpy(float), self.arrays["mean"], self.arrays["sd"])


def standardize(x: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Return (x − mean) / sd for features x [rows, features]; 0 where a feature is not finite."""
    return np.where(np.isfinite(x), (x - mean) / sd, 0.0)


@dataclass(frozen=True)
class Confidence:
    """Pair of classifiers that `confidence train` trains: of whole answers, and of single tokens."""

    answers: FittedClassifier
    tokens: FittedClassifier

    def apply(self, trace: Trace) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the confidence in each answer, and in each of its tokens.

        Returns:
          Answers: prompt (number of the row), id, confidence, and out_of_range, the share of features that are far from
          the training's; where it is high, the confidence means nothing. Tokens: prompt, step, confidence. Answers
          without a token are excluded.

        Raises:
          StudyError: the trace lacks a probe, or samples; the message names the option that records them.
        """
        tables = feature_tables({"": trace}, estimators=self.answers.estimators)
        features, numbers = with_estimators(tables, self.answers.estimators), tables.answers["row"]
        answers = {
            "prompt": numbers,
            "id": tables.answers["prompt"],
            "confidence": self.answers.probabilities(features),
            "out_of_range": self.answers.out_of_range(features),
        }
        tokens = {
            "prompt": numbers.to_numpy()[tables.tokens["answer"]],
            "step": tables.tokens["step"],
            "confidence": self.tokens.probabilities(tables.token_features),
        }
        return pd.DataFrame(answers), pd.DataFrame(tokens)

    def answer_confidences(self, trace: Trace) -> list[AnswerConfidence]:
        """Return the confidence in each row of a trace, for its page; see `apply`."""
        confidences = [AnswerConfidence(np.nan, np.full(length, np.nan)) for length in trace.lengths]
        if not any(len(row.drawn_steps) for row in trace.rows):
            return confidences
        (answers, tokens), prompt_steps = self.apply(trace), trace.prompt_steps
        for prompt, value in zip(answers["prompt"], answers["confidence"], strict=True):
            confidences[prompt] = replace(confidences[prompt], answer=value)
        for prompt, step, value in zip(tokens["prompt"], tokens["step"], tokens["confidence"], strict=True):
            confidences[prompt].tokens[prompt_steps[prompt] + step] = value
        return confidences
