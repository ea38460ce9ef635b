"""Quality of scores that rank true labels above false ones; a higher score means "true", so negate uncertainties.

The areas are computed here because scikit-learn's functions, which check their arguments at each call, take at
least twenty times as long for the same values (312 rows), and each is called for thousands of resamples.

A resample keeps the numbers of true and of false groups, so that both classes are always there; of groups with rows of
both classes it keeps the number of groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from jaxtrace.errors import StudyError
from jaxtrace.statistics.intervals import Bounds, Estimate, Resampling, bootstrap


def auroc(labels: ArrayLike, scores: ArrayLike, **settings: Unpack[Resampling]) -> Estimate:
    """Return the area under the ROC curve: P(a true row's score > a false row's score), where ties count half.

    Args:
      labels: [rows], booleans or 0 and 1.
      scores: [rows], finite; a higher score means true.

    Raises:
      StudyError: all labels are the same.
    """
    return _of_classes(area_under_roc, labels, scores, (0.0, 1.0), settings)


def auprc(labels: ArrayLike, scores: ArrayLike, **settings: Unpack[Resampling]) -> Estimate:
    """Return the average precision: the stepwise area under precision by recall. Chance gives the share of true rows.

    Arguments and errors are as for `auroc`.
    """
    return _of_classes(_average_precision, labels, scores, (0.0, 1.0), settings)


def prediction_rejection_ratio(labels: ArrayLike, scores: ArrayLike, **settings: Unpack[Resampling]) -> Estimate:
    """Return the area above chance of the prediction–rejection curve, divided by the oracle's: 0 chance, 1 oracle.

    The curve is the share of true (right) rows among the kept ones, as rows of the lowest scores are rejected (Malinin
    et al. 2017). The area is its mean over coverages 1/n, 2/n, … 1, and over all orders of equal scores. Arguments and
    errors are as for `auroc`.
    """
    return _of_classes(_rejection, labels, scores, (-np.inf, 1.0), settings)


def risk_coverage(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the share of false (wrong) rows among the kept ones, by the share kept (Geifman and El-Yaniv 2017).

    Args:
      labels: [rows], true if a row is right.
      scores: [rows]; rows of high score are kept first. The risk is averaged over all orders of equal scores.

    Returns:
      coverage: [rows], 1/n … 1.
      risk: [rows], risk at each coverage.
      area: mean of `risk`.

    Raises:
      StudyError: no rows.
    """
    labels = np.asarray(labels, float)
    if not len(labels):
        raise StudyError("no rows for a risk–coverage curve; give labelled traces")
    risk = 1 - _kept(labels, np.asarray(scores, float))
    return np.arange(1, len(labels) + 1) / len(labels), risk, float(risk.mean())


def area_under_roc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return `auroc`'s value alone, from the ranks (Mann and Whitney); NaN if all labels are the same."""
    true = int(labels.sum())
    if not 0 < true < len(labels):
        return np.nan
    pairs_in_order = rankdata(scores)[labels].sum() - true * (true + 1) / 2
    return float(pairs_in_order / (true * (len(labels) - true)))


def _of_classes(
    measure: Callable[[np.ndarray, np.ndarray], float],
    labels: ArrayLike,
    scores: ArrayLike,
    bounds: Bounds,
    settings: Resampling,
) -> Estimate:
    truth = _two_classes(labels)
    return bootstrap(measure, truth, np.asarray(scores, float), strata=truth, bounds=bounds, **settings)


def _two_classes(labels: ArrayLike) -> np.ndarray:
    """Return labels [rows] as booleans; raise StudyError if there are none, or all are the same."""
    array = np.asarray(labels).astype(bool)
    if array.all() or not array.any():
        state = f"all {len(array)} labels are {bool(array[0])}" if len(array) else "there are no labels"
        raise StudyError(f"{state}, so that no classes can be compared; give rows of both classes")
    return array


def _average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    if labels.all() or not labels.any():
        return np.nan
    _, tie, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    true = np.bincount(tie, labels)
    return float(true @ (np.cumsum(true) / np.cumsum(sizes)) / true.sum())


def _rejection(labels: np.ndarray, scores: np.ndarray) -> float:
    share = labels.mean()
    if share in (0, 1):
        return np.nan
    oracle = _kept(labels.astype(float), labels.astype(float)).mean()
    return float((_kept(labels.astype(float), scores).mean() - share) / (oracle - share))


def _kept(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the mean label [rows] of the 1, 2, … rows of highest score, averaged over all orders of equal scores."""
    _, tie, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    shares = np.bincount(tie, labels) / sizes
    return np.cumsum(np.repeat(shares, sizes)) / np.arange(1, len(labels) + 1)
