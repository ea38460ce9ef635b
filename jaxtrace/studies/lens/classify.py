"""Telling classes apart by nearest neighbours, cross-validated, against guesses from the class sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from jaxtrace.errors import StudyError
from jaxtrace.statistics.intervals import Estimate

Labels = np.ndarray  # [n] of str
Splits = list[tuple[Int[np.ndarray, " train"], Int[np.ndarray, " test"]]]


@dataclass(frozen=True)
class Scores:
    """Of each fold's held-out rows.

    Attributes:
      auc: area under the ROC curve [F]; of more than two classes the mean of each against the rest.
      accuracy: share of rows that are given their class [F].
    """

    auc: Float[np.ndarray, " F"]
    accuracy: Float[np.ndarray, " F"]


def check_classes(labels: Labels, folds: int) -> None:
    """Raises StudyError for one class only, or one of fewer rows than folds."""
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2:
        raise StudyError(f"all {len(labels)} answers are of the class '{names[0]}': nothing to tell apart")
    if counts.min() < folds:
        name = names[counts.argmin()]
        raise StudyError(
            f"the class '{name}' has {counts.min()} answers, fewer than the {folds} folds; "
            "give more answers, or fewer --folds"
        )


def stratified(labels: Labels, folds: int, seed: int) -> Splits:
    """Folds with each class's share of rows, whatever rows have in common: the published protocol."""
    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels))


def grouped(labels: Labels, groups: np.ndarray, folds: int, seed: int) -> Splits:
    """Folds with about each class's share of rows, no group in two of them.

    There are as many folds, up to `folds`, as leave every class in each; none where two are too many.
    """
    fewest = min(len(np.unique(groups[labels == name])) for name in np.unique(labels))
    for count in range(min(folds, fewest), 1, -1):
        splits = list(StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, groups))
        classes = len(np.unique(labels))
        if all(len(np.unique(labels[part])) == classes for split in splits for part in split):
            return splits
    return []


def fewest_known(splits: Splits) -> int:
    """Rows of the smallest training set: the most neighbours that all folds have."""
    return min(len(train) for train, _ in splits)


def neighbours(
    features: Float[np.ndarray, "n F"],
    labels: Labels,
    splits: Splits,
    k: int,
    covariates: Float[np.ndarray, "n C"] | None = None,
) -> Scores:
    """Scores of the k nearest neighbours, Euclidean, of equal weight; features are taken as they are.

    Args:
      features, labels: of the rows.
      splits: rows to learn from and rows held out, of each fold.
      k: how many neighbours, at most `fewest_known`.
      covariates: what the features are rid of first: the residuals of a linear regression that is fitted on the rows to
        learn from.
    """

    def held_out(train: np.ndarray, test: np.ndarray) -> tuple[float, float]:
        known, new = features[train], features[test]
        if covariates is not None:
            line = LinearRegression().fit(covariates[train], known)
            known, new = known - line.predict(covariates[train]), new - line.predict(covariates[test])
        return _scored(KNeighborsClassifier(k).fit(known, labels[train]), new, labels[test])

    return Scores(*np.array([held_out(*split) for split in splits]).T)


def guesses(labels: Labels, splits: Splits, seed: int) -> Scores:
    """Scores of classes drawn with the shares they have in the rows to learn from."""
    nothing, found = np.zeros((len(labels), 1)), []
    for fold, (train, test) in enumerate(splits):
        dummy = DummyClassifier(strategy="stratified", random_state=seed + fold).fit(nothing[train], labels[train])
        found.append(_scored(dummy, nothing[test], labels[test]))
    return Scores(*np.array(found).T)


def over_folds(values: Float[np.ndarray, " F"], splits: Splits) -> tuple[Estimate, float, float]:
    """The mean over folds with its 95 % interval, and how far it is from 0.

    Folds share most of the rows they learn from, so their mean varies more than the spread over them says. The variance
    of the mean is that spread times 1 / folds + held-out rows / training rows (Nadeau and Bengio 2003).

    Returns:
      The mean, the two-sided p of the t test with this variance, and that of the plain paired t test, which takes
      folds for independent.
    """
    count, ratio = len(values), np.mean([len(test) / len(train) for train, test in splits])
    mean, variance = float(values.mean()), float(values.var(ddof=1))
    corrected, plain = (float(np.sqrt(variance * share)) for share in (1 / count + ratio, 1 / count))
    reach = float(stats.t.ppf(0.975, count - 1)) * corrected
    estimate = Estimate(mean, mean - reach, mean + reach, sum(len(test) for _, test in splits))
    return estimate, _p(mean, corrected, count - 1), _p(mean, plain, count - 1)


def macro_auc(labels: Labels, probabilities: Float[np.ndarray, "n K"], classes: Sequence[str]) -> float:
    """Area under the ROC curve of two classes, or the mean over classes of each against the rest."""
    if len(classes) == 2:
        return float(roc_auc_score(labels == classes[1], probabilities[:, 1]))
    return float(roc_auc_score(labels, probabilities, multi_class="ovr", average="macro", labels=classes))


def _scored(model, features: np.ndarray, labels: Labels) -> tuple[float, float]:
    probabilities = model.predict_proba(features)
    right = model.classes_[probabilities.argmax(1)] == labels
    return macro_auc(labels, probabilities, model.classes_), float(right.mean())


def _p(mean: float, error: float, freedom: int) -> float:
    if error == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / error, freedom))
