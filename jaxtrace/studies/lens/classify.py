"""Classification by nearest neighbours, cross-validated, compared with guesses from the class sizes."""

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
class FoldScores:
    """Scores of each fold's held-out rows.

    Attributes:
      auc: area under the ROC curve [F]; with more than two classes, the mean of each class against the others.
      accuracy: share of rows assigned to their class [F].
    """

    auc: Float[np.ndarray, " F"]
    accuracy: Float[np.ndarray, " F"]


def check_classes(labels: Labels, folds: int) -> None:
    """Raise StudyError for a single class, or for a class with fewer rows than folds."""
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2:
        raise StudyError(f"all {len(labels)} answers are of the class '{names[0]}'; give answers of two classes")
    if counts.min() < folds:
        name = names[counts.argmin()]
        raise StudyError(
            f"the class '{name}' has {counts.min()} answers, fewer than the {folds} folds; "
            "give more answers, or fewer --folds"
        )


def stratified(labels: Labels, folds: int, seed: int) -> Splits:
    """Return folds with each class's share of rows, whatever rows share: the published protocol."""
    return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels))


def grouped(labels: Labels, groups: np.ndarray, folds: int, seed: int) -> Splits:
    """Return folds with about each class's share of rows, and no group in two folds.

    The number of folds is the largest up to `folds` that keeps every class in each part; [] if not even two do.
    """
    classes = np.unique(labels)
    fewest = min(len(np.unique(groups[labels == name])) for name in classes)
    for count in range(min(folds, fewest), 1, -1):
        splits = list(StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, groups))
        if all(len(np.unique(labels[part])) == len(classes) for split in splits for part in split):
            return splits
    return []


def smallest_training_set(splits: Splits) -> int:
    """Return the size of the smallest training set: the largest number of neighbours that all folds allow."""
    return min(len(train) for train, _ in splits)


def neighbours(
    features: Float[np.ndarray, "n F"],
    labels: Labels,
    splits: Splits,
    k: int,
    covariates: Float[np.ndarray, "n C"] | None = None,
) -> FoldScores:
    """Score the k nearest neighbours, by Euclidean distance with equal weights; features are not scaled.

    Args:
      k: number of neighbours, at most `smallest_training_set`.
      covariates: variables to remove from the features first: a linear regression, fitted on the training rows, leaves
        its residuals.
    """

    def held_out(train: np.ndarray, test: np.ndarray) -> tuple[float, float]:
        known, new = features[train], features[test]
        if covariates is not None:
            line = LinearRegression().fit(covariates[train], known)
            known, new = known - line.predict(covariates[train]), new - line.predict(covariates[test])
        return _scores(KNeighborsClassifier(k).fit(known, labels[train]), new, labels[test])

    return FoldScores(*np.array([held_out(*split) for split in splits]).T)


def guesses(labels: Labels, splits: Splits, seed: int) -> FoldScores:
    """Score random classes, drawn with their shares in the training rows."""
    no_features, scores = np.zeros((len(labels), 1)), []
    for fold, (train, test) in enumerate(splits):
        dummy = DummyClassifier(strategy="stratified", random_state=seed + fold).fit(no_features[train], labels[train])
        scores.append(_scores(dummy, no_features[test], labels[test]))
    return FoldScores(*np.array(scores).T)


def over_folds(values: Float[np.ndarray, " F"], splits: Splits) -> tuple[Estimate, float, float]:
    """Return the mean over folds with its 95 % interval, and tests of its difference from 0.

    Folds share most of their training rows, so their mean varies more than the spread over them suggests. The variance
    of the mean is that spread times 1 / folds + held-out rows / training rows (Nadeau and Bengio 2003).

    Returns:
      The mean, the two-sided p of the t test with this variance, and the p of the plain paired t test, which assumes
      independent folds.
    """
    count, ratio = len(values), np.mean([len(test) / len(train) for train, test in splits])
    mean, variance = float(values.mean()), float(values.var(ddof=1))
    corrected, plain = (float(np.sqrt(variance * share)) for share in (1 / count + ratio, 1 / count))
    reach = float(stats.t.ppf(0.975, count - 1)) * corrected
    estimate = Estimate(mean, mean - reach, mean + reach, sum(len(test) for _, test in splits))
    return estimate, _p(mean, corrected, count - 1), _p(mean, plain, count - 1)


def macro_auc(labels: Labels, probabilities: Float[np.ndarray, "n K"], classes: Sequence[str]) -> float:
    """Return the area under the ROC curve of two classes, or the mean over classes of each against the others."""
    if len(classes) == 2:
        return float(roc_auc_score(labels == classes[1], probabilities[:, 1]))
    return float(roc_auc_score(labels, probabilities, multi_class="ovr", average="macro", labels=classes))


def _scores(model: KNeighborsClassifier | DummyClassifier, features: np.ndarray, labels: Labels) -> tuple[float, float]:
    probabilities = np.asarray(model.predict_proba(features))
    right = np.asarray(model.classes_)[probabilities.argmax(1)] == labels
    return macro_auc(labels, probabilities, list(model.classes_)), float(right.mean())


def _p(mean: float, error: float, freedom: int) -> float:
    if error == 0:  # all folds are equal, and have no variance for a t test: a sign test
        return 1.0 if mean == 0 else 2.0**-freedom
    return float(2 * stats.t.sf(abs(mean) / error, freedom))
