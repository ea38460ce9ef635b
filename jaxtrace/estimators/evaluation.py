"""Quality of estimators: how well their scores tell right answers from wrong ones."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from jaxtrace import interrupts
from jaxtrace.errors import StudyError
from jaxtrace.estimators.scores import checked_labels
from jaxtrace.estimators.table import OnCount, score_columns
from jaxtrace.statistics.calibration import expected_calibration_error
from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.intervals import Estimate, Resampling, bootstrap, estimate_columns
from jaxtrace.statistics.ranking import auprc, auroc, prediction_rejection_ratio, risk_coverage

FOLDS = 5
RESAMPLES = 1000
LEAST_PENALTY = 1e-6  # keeps weights finite where a score separates the classes
MEASURES = ("auroc", "auroc_same_length", "auprc", "prr", "risk", "ece")


def evaluate(
    scores: pd.DataFrame,
    labels: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    on_count: OnCount = lambda done, total, name: None,
) -> pd.DataFrame:
    """Measure how well each estimator tells right answers from wrong ones, with 95 % intervals over prompts.

    Args:
      scores: table of `estimate`. Samples of a prompt are resampled, and held out, together.
      labels: [rows], 1 or True for a right answer, 0 or False for a wrong one, NaN for an unknown, excluded one.
      resamples, seed: number and seed of the resamples of prompts.
      on_count: called before each estimator, and at the end.

    Returns:
      A row per estimator, the best AUROC first: estimator, passes, then measures x, each with its interval x_low to
      x_high: auroc; auroc_same_length, after ln(number of tokens) is regressed out; auprc; prr, the
      prediction–rejection ratio; risk, the area under risk by coverage; ece, the expected calibration error (20 bins)
      of a logistic regression of the score on held-out prompts, NaN if a class has one prompt only. n is the number of
      answers, right the number of right ones, groups the number of prompts. Answers without a finite score are excluded
      from their estimator's row; an estimator whose scored answers are of one class has NaN.

    Raises:
      StudyError: there are not as many labels as answers, one is not 0, 1 or NaN, or they are of one class only.
    """
    labels, estimators = checked_labels(labels, len(scores), "evaluate"), score_columns(scores)
    require_classes(labels, "labels")
    known = np.isfinite(labels)
    rows = []
    for done, each in enumerate(estimators):
        interrupts.check()
        on_count(done, len(estimators), each.name)
        values = scores[each.name].to_numpy(float)
        kept = known & np.isfinite(values)
        right, groups = labels[kept] == 1, scores["group"].to_numpy()[kept]
        confidence = (-values if each.higher_is_uncertain else values)[kept]
        probabilities = held_out_probabilities(right, confidence, groups, seed=seed)
        lengths = scores["tokens"].to_numpy(float)[kept]
        settings: Resampling = {"groups": groups, "seed": seed, "resamples": resamples}
        estimates = measures(right, confidence, probabilities, lengths, **settings)
        counts = {"n": int(kept.sum()), "right": int(right.sum()), "groups": len(np.unique(groups))}
        rows.append({"estimator": each.name, "passes": each.passes, **estimate_columns(estimates), **counts})
    on_count(len(estimators), len(estimators), "")
    return pd.DataFrame(rows).sort_values("auroc", ascending=False, ignore_index=True, kind="stable")


def has_classes(labels: Float[np.ndarray, " rows"]) -> bool:
    """Return True if labels (1 right, 0 wrong, NaN unknown) are of both classes."""
    return len(np.unique(labels[np.isfinite(labels)])) == 2


def require_classes(labels: Float[np.ndarray, " rows"], where: str) -> None:
    """Raise StudyError unless labels (1 right, 0 wrong, NaN unknown) are of both classes."""
    if not has_classes(labels):
        known = labels[np.isfinite(labels)]
        word = "right" if known.any() else "wrong"
        state = f"all {len(known)} labelled answers are {word}" if len(known) else "no answer has a label"
        raise StudyError(f"{where}: {state}; give labels of right and of wrong answers")


def held_out_probabilities(
    right: Bool[np.ndarray, " rows"],
    scores: Float[np.ndarray, " rows"],
    groups: Shaped[np.ndarray, " rows"],
    *,
    folds: int = FOLDS,
    seed: int = 0,
) -> Float[np.ndarray, " rows"]:
    """Return the probability that each row is right, by a logistic regression on a score of the other folds' rows.

    Rows of a group are in one fold. There are at most as many folds as a class has groups; all is NaN if that is one.
    """
    splits = held_out_splits(right, groups, folds=folds, seed=seed)
    if splits is None:
        return np.full(len(right), np.nan)
    standardized = (scores - scores.mean()) / (scores.std() or 1.0)
    model = LogisticRegression(C=1 / (LEAST_PENALTY * len(right)), solver="newton-cholesky")
    both = cross_val_predict(model, standardized[:, None], right, cv=splits, method="predict_proba")
    return np.asarray(both)[:, 1]


def held_out_splits(
    classes: Bool[np.ndarray, " rows"], groups: Shaped[np.ndarray, " rows"], *, folds: int = FOLDS, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Return pairs (rows to fit, rows held out); rows of a group are on one side.

    There are at most as many folds as a class has groups. None if that is one, or if a fit would see one class only.
    """
    folds = min(folds, *(len(np.unique(groups[classes == value])) for value in (False, True)))
    if folds < 2:
        return None
    splits = [*StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(classes, classes, groups)]
    return splits if all(len(np.unique(classes[fitted])) == 2 for fitted, _ in splits) else None


def same_length(scores: Float[np.ndarray, " rows"], lengths: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    """Return the residuals of scores after ln(length) is regressed out, rounded so that equal rows tie."""
    return np.round(residualize(scores, np.log(lengths)) / (np.ptp(scores) or 1.0), 9)


def measures(
    right: Bool[np.ndarray, " rows"],
    confidence: Float[np.ndarray, " rows"],
    probabilities: Float[np.ndarray, " rows"],
    lengths: Float[np.ndarray, " rows"],
    **resampling: Unpack[Resampling],
) -> dict[str, Estimate]:
    """Return the quality of a score with intervals; see `evaluate`. All is NaN for rows of one class.

    Args:
      confidence: score that rises with the chance of being right, finite.
      probabilities: probability of being right; the calibration error is NaN where they are.
      lengths: number of tokens.
    """

    def risk(right: np.ndarray, confidence: np.ndarray) -> float:
        return risk_coverage(right, confidence)[2]

    unknown = Estimate(np.nan, np.nan, np.nan, 0)
    if right.all() or not right.any():
        return dict.fromkeys(MEASURES, unknown)
    calibrated = np.isfinite(probabilities).all()
    return {
        "auroc": auroc(right, confidence, **resampling),
        "auroc_same_length": auroc(right, same_length(confidence, lengths), **resampling),
        "auprc": auprc(right, confidence, **resampling),
        "prr": prediction_rejection_ratio(right, confidence, **resampling),
        "risk": bootstrap(risk, right, confidence, bounds=(0.0, 1.0), **resampling),
        "ece": expected_calibration_error(right, probabilities, **resampling) if calibrated else unknown,
    }
