"""From traces and labels to a confidence, and to what can be said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from jaxtrace.errors import StudyError
from jaxtrace.statistics.calibration import calibration_curve
from jaxtrace.studies._shared.result import Result, Table
from jaxtrace.studies.confidence.baselines import TEXTS
from jaxtrace.studies.confidence.evaluate import Scored, measures
from jaxtrace.studies.confidence.features import frames
from jaxtrace.studies.confidence.figures import pictures
from jaxtrace.studies.confidence.labels import truth
from jaxtrace.studies.confidence.model import Confidence, Fitted
from jaxtrace.studies.confidence.train import check_folds, cross_validated
from jaxtrace.traces.trace import Trace

BASELINE, OF_TOKENS = "mean_entropy", "entropy"
TOKEN_TEXTS = {
    "entropy": "entropy of the token's step",
    "surprisal": "−ln p of the token",
    "varentropy": "varentropy of the token's step",
}
FREE = ("entropy.mean", "surprisal.mean", "entropy", "surprisal")  # of answers and of tokens: not penalised
TRAINED = {"logistic": "logistic regression of the features", "mlp": "a small network of the same features"}


class ConfidenceConfig(BaseModel):
    """Settings of the training. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep: Literal["logistic", "mlp"] = Field("logistic", description="which of the two classifiers is kept")
    hidden: int = Field(16, ge=1, description="units of the network's hidden layer")
    penalty: float = Field(0.3, ge=0, description="on the squared weights of answers' standardised features")
    token_penalty: float = Field(0.003, ge=0, description="the same of tokens, of which there are more")
    group: str | None = Field(None, description="key of meta whose prompts stay together; each by itself without it")
    folds: int = Field(5, ge=2, description="parts of the cross-validation; a group is in one of them")
    resamples: int = Field(1000, ge=1, description="of groups, for the intervals")
    seed: int = Field(0, ge=0, lt=2**32, description="of folds, first weights and resamples")


def train(traces: Mapping[str, Trace], labels: Path | None, config: ConfidenceConfig) -> tuple[Confidence, Result]:
    """Trains a confidence of answers and of tokens, and measures both by groups of answers that they have not seen.

    Args:
      traces: by label; of one model, or of several that recorded the same probes.
      labels: a file as `labels.truth` takes it; None for grades by rules on strings.
      config: settings.

    Returns:
      The confidence, trained on all labelled rows; and tables and pictures of cross-validated ones, beside every
      baseline of `baselines.TEXTS`.

    Raises:
      JaxtraceError: the labels cannot be read; there is one class only, or fewer groups of a class than folds; the
        traces have no feature in common; no prompt has the group's key.
    """
    made = frames(traces, config.group)
    if BASELINE not in made.scores:
        raise StudyError("a trace lacks entropy, the baseline; trace again with --probes that include output")
    known = truth(traces, made, labels)
    groups, owner = made.answers["group"].to_numpy(), made.tokens["answer"].to_numpy()
    lengths, steps = made.answers["length"].to_numpy(), made.tokens["step"].to_numpy() + 1
    check_folds(known.answers, groups, config.folds)
    uncertain = made.token_features.filter(list(TOKEN_TEXTS))
    answers = _level(
        made.answer_features, known.answers, made.scores, groups, lengths, BASELINE, config, config.penalty
    )
    tokens = _level(
        made.token_features, known.tokens, uncertain, groups[owner], steps, OF_TOKENS, config, config.token_penalty
    )
    return Confidence(answers.kept, tokens.kept), _result(known.answers, answers, tokens)


@dataclass(frozen=True)
class _Level:
    """What came of answers, or of tokens: the classifier of all labelled rows, scores of these, and `measures`."""

    kept: Fitted
    scored: Scored
    measured: pd.DataFrame


def _level(
    features: pd.DataFrame,
    labels: np.ndarray,
    uncertain: pd.DataFrame,
    groups: np.ndarray,
    lengths: np.ndarray,
    baseline: str,
    config: ConfidenceConfig,
    penalty: float,
) -> _Level:
    rows = np.flatnonzero(np.isfinite(labels))
    features, labels, groups = features.iloc[rows], labels[rows], groups[rows]
    split: dict[str, Any] = {"folds": config.folds, "seed": config.seed}
    fitted, scores, probabilities = {}, {}, {}
    for name, hidden in (("logistic", 0), ("mlp", config.hidden)):
        settings = {"hidden": hidden, "penalty": penalty, "free": FREE, **split}
        probabilities[name], fitted[name] = cross_validated(features, labels, groups, **settings)
        scores[name] = probabilities[name]
    for name in uncertain.columns:
        scores[name] = -uncertain[name].to_numpy(float)[rows]
        alone = pd.DataFrame({name: scores[name]})
        probabilities[name] = cross_validated(alone, labels, groups, penalty=0.0, **split)[0]
    scored = Scored(labels.astype(bool), groups, lengths[rows], scores, probabilities)
    measured = measures(scored, baseline, seed=config.seed, resamples=config.resamples)
    return _Level(fitted[config.keep], scored, measured)


def _result(labels: np.ndarray, answers: _Level, tokens: _Level) -> Result:
    shown = ("logistic", "mlp", BASELINE)
    probabilities = answers.scored.probabilities
    curves = [calibration_curve(answers.scored.labels, probabilities[name]).assign(score=name) for name in shown]
    weights = pd.concat([_weights(answers.kept, "answers"), _weights(tokens.kept, "tokens")])
    how = (
        "Trained scores are of prompts, or groups of them, held out. Baselines need no training, but for the "
        "calibration error: logistic regression on the same folds makes probabilities of each. Of ln(length), "
        "x_same_length leaves nothing."
    )
    tables = {
        "answers": Table(_explained(answers.measured, TRAINED | TEXTS), f"{how} Gains are over {BASELINE}."),
        "tokens": Table(
            _explained(tokens.measured, TRAINED | TOKEN_TEXTS),
            f"A token's label is its answer's, unless a critic marked a step. {how} Gains are over {OF_TOKENS}.",
        ),
        "calibration": Table(pd.concat(curves), "Share of right answers by predicted probability, in 20 bins."),
        "weights": Table(weights, "Weights of standardised features, largest first, where a logistic one is kept."),
    }
    unknown, right = int(np.isnan(labels).sum()), int(answers.scored.labels.sum())
    notes = (
        f"{len(labels) - unknown} of {len(labels)} answers have a label, {right} of them are right; {unknown} that are "
        "not graded or not attempted are left out.",
        "Intervals are of 95 %, from resampled prompts, or groups of them; classifiers are not trained again for each "
        "resample.",
    )
    return Result(
        "confidence",
        "Can what a trace records tell right answers from wrong ones, and better than token entropy?",
        tables,
        pictures(answers.measured, answers.scored, shown),
        notes,
    )


def _explained(measured: pd.DataFrame, texts: Mapping[str, str]) -> pd.DataFrame:
    return measured.assign(what=[texts[name] for name in measured["score"]])


def _weights(fitted: Fitted, level: str) -> pd.DataFrame:
    if fitted.hidden:
        return pd.DataFrame({"level": [], "feature": [], "weight": []})
    frame = pd.DataFrame({"level": level, "feature": fitted.features, "weight": fitted.arrays["out.kernel"][:, 0]})
    return frame.sort_values("weight", key=np.abs, ascending=False)
