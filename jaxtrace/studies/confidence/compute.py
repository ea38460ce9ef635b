"""Training of a confidence from traces and labels, and the tables that measure it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxtrace.errors import StudyError, few
from jaxtrace.estimators import known_estimators
from jaxtrace.statistics.calibration import calibration_curve
from jaxtrace.studies._shared.result import Result, Table
from jaxtrace.studies.confidence.evaluate import ScoredRows, measure_scores
from jaxtrace.studies.confidence.features import FeatureTables, feature_tables
from jaxtrace.studies.confidence.figures import pictures
from jaxtrace.studies.confidence.labels import known_labels
from jaxtrace.studies.confidence.model import Confidence, FittedClassifier
from jaxtrace.studies.confidence.scores import estimator_scores, feature_estimators, label_estimators, uncertainties
from jaxtrace.studies.confidence.settings import ConfidenceConfig
from jaxtrace.studies.confidence.train import check_folds, cross_validated
from jaxtrace.traces.trace import Trace

ANSWER_BASELINE, TOKEN_BASELINE = "mean_token_entropy", "entropy"
TOKEN_TEXTS = {
    "entropy": "entropy of the token's step",
    "surprisal": "−ln p of the token",
    "varentropy": "varentropy of the token's step",
}
FREE = ("entropy.mean", "surprisal.mean", "entropy", "surprisal")  # features of answers and of tokens
CLASSIFIER_TEXTS = {
    "logistic": "logistic regression of the features",
    "mlp": "network of one hidden layer, with the same features",
}


def train(traces: Mapping[str, Trace], labels: Path | None, config: ConfidenceConfig) -> tuple[Confidence, Result]:
    """Train a confidence of answers and of tokens, and measure both on held-out groups of answers.

    Args:
      traces: traces by label; of one model, or of several that recorded the same probes.
      labels: file of labels, see `known_labels`; None grades answers by rules on strings.

    Returns:
      The confidence, trained on all labelled rows; and tables and pictures of cross-validated ones, beside every
      estimator that scores all labelled answers.

    Raises:
      JaxtraceError: the labels cannot be read; there is one class only, or a class has fewer groups than folds; the
        traces have no feature in common; no prompt has the group's key.
    """
    tables = feature_tables(traces, config.group, "all")
    entropy = tables.token_features.get(TOKEN_BASELINE)
    if entropy is None or not np.isfinite(entropy).all():
        raise StudyError("a trace lacks entropy, the baseline; trace again with --probes that include output")
    known = known_labels(tables, labels)
    groups, owner = tables.answers["group"].to_numpy(), tables.tokens["answer"].to_numpy()
    lengths, steps = tables.answers["length"].to_numpy(), tables.tokens["step"].to_numpy() + 1
    check_folds(known.answers, groups, config.folds)
    scores, notes = complete_scores(tables, known.answers, config.group)
    extra = [name for name in scores.columns if name in feature_estimators()]
    features = pd.concat([tables.answer_features, scores[extra]], axis=1)
    train_level = functools.partial(_train_level, config)
    answers = train_level(
        features, known.answers, uncertainties(scores), groups, lengths, ANSWER_BASELINE, config.penalty
    )
    token_scores = tables.token_features.filter(list(TOKEN_TEXTS))
    tokens = train_level(
        tables.token_features, known.tokens, token_scores, groups[owner], steps, TOKEN_BASELINE, config.token_penalty
    )
    return Confidence(answers.kept, tokens.kept), _result(known.answers, answers, tokens, tables.notes + notes)


def complete_scores(
    tables: FeatureTables, labels: np.ndarray, group: str | None
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the scores of the estimators that score all labelled answers, and notes on others."""
    scores = estimator_scores(tables, labels=labels if group is None else None)
    if taken := [name for name in scores.columns if name in CLASSIFIER_TEXTS]:
        raise StudyError(f"an estimator is named {taken[0]!r}, as a trained score is; rename it")
    labelled, notes = scores[np.isfinite(labels)], []
    complete = [name for name in scores.columns if np.isfinite(labelled[name]).all()]
    if partial := [name for name in scores.columns if name not in complete]:
        notes.append(f"Estimators that do not score every labelled answer are excluded: {few(partial)}.")
    if group is not None:
        learned = ", ".join(label_estimators())
        notes.append(
            f"Estimators that learn from labels are excluded with --group, as they hold out prompts: {learned}."
        )
    return scores[complete], tuple(notes)


@dataclass(frozen=True)
class _TrainedLevel:
    """Training of answers, or of tokens: the kept classifier, the scored rows and `measure_scores` of them."""

    kept: FittedClassifier
    scored: ScoredRows
    measured: pd.DataFrame


def _train_level(
    config: ConfidenceConfig,
    features: pd.DataFrame,
    labels: np.ndarray,
    uncertainties: pd.DataFrame,
    groups: np.ndarray,
    lengths: np.ndarray,
    baseline: str,
    penalty: float,
) -> _TrainedLevel:
    rows = np.flatnonzero(np.isfinite(labels))
    features, labels, groups = features.iloc[rows], labels[rows], groups[rows]
    split: dict[str, Any] = {"folds": config.folds, "seed": config.seed}
    fitted, scores, probabilities = {}, {}, {}
    for name, hidden in (("logistic", 0), ("mlp", config.hidden)):
        probabilities[name], fitted[name] = cross_validated(
            features, labels, groups, hidden=hidden, penalty=penalty, free=FREE, **split
        )
        scores[name] = probabilities[name]
    for name in uncertainties.columns:
        scores[name] = -uncertainties[name].to_numpy(float)[rows]
        score_alone = pd.DataFrame({name: scores[name]})
        probabilities[name] = cross_validated(score_alone, labels, groups, penalty=0.0, **split)[0]
    scored = ScoredRows(labels.astype(bool), groups, lengths[rows], scores, probabilities)
    measured = measure_scores(scored, baseline, seed=config.seed, resamples=config.resamples)
    return _TrainedLevel(fitted[config.keep], scored, measured)


def _result(labels: np.ndarray, answers: _TrainedLevel, tokens: _TrainedLevel, notes: tuple[str, ...]) -> Result:
    shown = ("logistic", "mlp", ANSWER_BASELINE)
    probabilities = answers.scored.probabilities
    curves = [calibration_curve(answers.scored.labels, probabilities[name]).assign(score=name) for name in shown]
    weights = pd.concat([_weights(answers.kept, "answers"), _weights(tokens.kept, "tokens")])
    method = (
        "Trained scores are measured on held-out prompts, or groups of them. The other scores are those of `jaxtrace "
        "estimate`; for their calibration error, logistic regression on the same folds turns each into a probability. "
        "x_same_length is measured after ln(length) is regressed out."
    )
    tables = {
        "answers": Table(
            _with_texts(
                answers.measured, CLASSIFIER_TEXTS | {name: each.formula for name, each in known_estimators().items()}
            ),
            f"{method} Gains are over {ANSWER_BASELINE}.",
        ),
        "tokens": Table(
            _with_texts(tokens.measured, CLASSIFIER_TEXTS | TOKEN_TEXTS),
            f"A token has its answer's label, unless a critic marked a step. {method} Gains are over {TOKEN_BASELINE}.",
        ),
        "calibration": Table(pd.concat(curves), "Share of right answers by predicted probability, in 20 bins."),
        "weights": Table(weights, "Weights of the standardized features of a logistic regression, largest first."),
    }
    unknown, right = int(np.isnan(labels).sum()), int(answers.scored.labels.sum())
    notes = (
        *notes,
        f"{len(labels) - unknown} of {len(labels)} answers have a label, {right} of them are right; {unknown} that are "
        "not graded or not attempted are excluded.",
        "Intervals are of 95 %, over prompts, or groups of them, and not adjusted for the number of scores; "
        "classifiers are not trained again for each resample.",
    )
    return Result(
        "confidence",
        "Can what a trace records tell right answers from wrong ones, and better than token entropy?",
        tables,
        pictures(answers.measured, answers.scored, shown),
        notes,
    )


def _with_texts(measured: pd.DataFrame, texts: Mapping[str, str]) -> pd.DataFrame:
    return measured.assign(what=[texts[name] for name in measured["score"]])


def _weights(fitted: FittedClassifier, level: str) -> pd.DataFrame:
    if fitted.hidden:
        return pd.DataFrame({"level": [], "feature": [], "weight": []})
    frame = pd.DataFrame({"level": level, "feature": fitted.features, "weight": fitted.arrays["out.kernel"][:, 0]})
    return frame.sort_values("weight", key=np.abs, ascending=False)
