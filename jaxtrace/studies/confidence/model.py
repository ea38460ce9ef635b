"""A trained confidence: from features to the probability that an answer, or the answer of a token, is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx

from jaxtrace.errors import StudyError
from jaxtrace.studies.confidence.features import frames, probes_of
from jaxtrace.traces.trace import Trace

FAR = 4.0  # standard deviations


class Classifier(nnx.Module):
    """The logit of a row being right: a linear map of its features, or one of a hidden layer of them."""

    def __init__(self, features: int, hidden: int, rngs: nnx.Rngs):
        """For rows of some features; 0 hidden units make it logistic regression."""
        self.hidden = nnx.Linear(features, hidden, rngs=rngs) if hidden else None
        self.out = nnx.Linear(hidden or features, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features [rows, features] to logits [rows]."""
        return self.out(x if self.hidden is None else nnx.gelu(self.hidden(x)))[:, 0]


@dataclass(frozen=True)
class Fitted:
    """A classifier and what its features are standardised with.

    Attributes:
      features: their names.
      hidden: units of the hidden layer; 0 for none.
      arrays: "mean" and "sd" [features], and the weights by their path: "out.kernel" [features or hidden, 1],
        "out.bias" [1], and of a hidden layer "hidden.kernel" and "hidden.bias"; float32.
    """

    features: tuple[str, ...]
    hidden: int
    arrays: dict[str, np.ndarray]

    def probabilities(self, frame: pd.DataFrame) -> np.ndarray:
        """That each row is right, float64 [rows].

        Raises:
          StudyError: a feature is missing; the message names the probes that record it.
        """
        x, hidden = self._standardised(frame), self.hidden
        graph, state = nnx.split(nnx.eval_shape(lambda: Classifier(len(self.features), hidden, nnx.Rngs(0))))
        weights = [
            (path, leaf.replace(jnp.asarray(self.arrays[".".join(map(str, path))])))
            for path, leaf in nnx.to_flat_state(state)
        ]
        return np.asarray(jax.nn.sigmoid(nnx.merge(graph, nnx.from_flat_state(weights))(x)), float)

    def unlike(self, frame: pd.DataFrame) -> np.ndarray:
        """Share [rows] of features that are further than `FAR` standard deviations from the mean of the training."""
        return np.asarray((jnp.abs(self._standardised(frame)) > FAR).mean(1), float)

    def _standardised(self, frame: pd.DataFrame) -> jax.Array:
        if missing := [name for name in self.features if name not in frame]:
            probes = ",".join(probes_of(missing))
            raise StudyError(f"the trace lacks {missing[0]} and the like; trace again with --probes that hold {probes}")
        return standardised(frame[list(self.features)].to_numpy(np.float32), self.arrays["mean"], self.arrays["sd"])


def standardised(x: jax.Array | np.ndarray, mean: jax.Array | np.ndarray, sd: jax.Array | np.ndarray) -> jax.Array:
    """Features [rows, features] less their means, in standard deviations; 0 where one is missing (NaN)."""
    return jnp.where(jnp.isfinite(x), (x - mean) / sd, 0.0)


class Sure(NamedTuple):
    """What a trained confidence says of a row.

    Attributes:
      answer: probability that the answer is right; NaN where it has no token.
      tokens: [steps] the same, from each token alone; NaN at steps that drew nothing.
    """

    answer: float
    tokens: np.ndarray


@dataclass(frozen=True)
class Confidence:
    """What `confidence train` gives: one classifier of whole answers, one of tokens.

    Attributes:
      answers: of the features of `frames(…).answers`.
      tokens: of the features of its tokens.
    """

    answers: Fitted
    tokens: Fitted

    def apply(self, trace: Trace) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The confidence in each answer, and in each of its tokens.

        Returns:
          Columns prompt (number of the row), id, confidence, and unlike, the share of its features that are far from
          those of the training: where it is high, the confidence means nothing; and prompt, step, confidence. Answers
          without a token are left out.

        Raises:
          StudyError: the trace lacks a probe; the message names it.
        """
        made = frames({"": trace})
        number = made.answers["row"]
        answers = {
            "prompt": number,
            "id": made.answers["prompt"],
            "confidence": self.answers.probabilities(made.answer_features),
            "unlike": self.answers.unlike(made.answer_features),
        }
        tokens = {
            "prompt": number.to_numpy()[made.tokens["answer"]],
            "step": made.tokens["step"],
            "confidence": self.tokens.probabilities(made.token_features),
        }
        return pd.DataFrame(answers), pd.DataFrame(tokens)

    def of_rows(self, trace: Trace) -> list[Sure]:
        """The same for the page of a trace: one for each of its rows."""
        (answers, tokens), ahead = self.apply(trace), trace.prompt_steps
        found = [Sure(np.nan, np.full(length, np.nan)) for length in trace.lengths]
        for prompt, value in zip(answers["prompt"], answers["confidence"], strict=True):
            found[prompt] = found[prompt]._replace(answer=value)
        for prompt, step, value in zip(tokens["prompt"], tokens["step"], tokens["confidence"], strict=True):
            found[prompt].tokens[ahead[prompt] + step] = value
        return found
