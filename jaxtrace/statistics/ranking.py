"""How well a score tells true labels from false ones. A higher score says "true": give uncertainties negated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from jaxtrace.errors import StudyError
from jaxtrace.statistics.intervals import Estimate, bootstrap


def auroc(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None, seed: int = 0, resamples: int = 1000
) -> Estimate:
    """Area under the receiver operating characteristic: P(score of a true row > of a false one), ties by half.

    Args:
      labels: [rows] of booleans or 0 and 1.
      scores: [rows], finite; higher says true.
      groups: [rows], such as prompts, that are resampled as a whole.
      seed, resamples: of the interval.

    Raises:
      StudyError: all labels are the same.
    """
    return _ranked(area_under_roc, labels, scores, groups, seed, resamples)


def auprc(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None, seed: int = 0, resamples: int = 1000
) -> Estimate:
    """Average precision: the area under precision by recall, as steps. At random it is the share of true rows.

    Args and errors are those of `auroc`.
    """
    return _ranked(_average_precision, labels, scores, groups, seed, resamples)


def prediction_rejection_ratio(
    labels: ArrayLike, scores: ArrayLike, *, groups: ArrayLike | None = None, seed: int = 0, resamples: int = 1000
) -> Estimate:
    """Area between the prediction–rejection curves of a score and of chance, over the oracle's: 0 chance, 1 oracle.

    The curve is the share of true (right) rows among those kept, as those of the lowest scores are rejected (Malinin
    et al. 2017); the area is its mean over coverages 1/n, 2/n, … 1. Rows of equal score are kept in a random order, on
    average.

    Args and errors are those of `auroc`.
    """
    return _ranked(_rejection, labels, scores, groups, seed, resamples)


def risk_coverage(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray, float]:
    """The share of false (wrong) rows among those kept, by the share kept (Geifman and El-Yaniv 2017).

    Args:
      labels: [rows], true where a row is right.
      scores: [rows]; rows of high score are kept first, those of equal score in a random order, on average.

    Returns:
      coverage: [rows], 1/n … 1.
      risk: [rows], at each coverage.
      area: the mean of `risk`.

    Raises:
      StudyError: there are no rows.
    """
    labels = np.asarray(labels, float)
    if not len(labels):
        raise StudyError("no rows for a risk–coverage curve; give labelled traces")
    risk = 1 - _kept(labels, np.asarray(scores, float))
    return np.arange(1, len(labels) + 1) / len(labels), risk, float(risk.mean())


def area_under_roc(labels: np.ndarray, scores: np.ndarray) -> float:
    """`auroc`'s value alone, from the ranks (Mann and Whitney); NaN where all labels are the same."""
    true = int(labels.sum())
    if not 0 < true < len(labels):
        return np.nan
    below = rankdata(scores)[labels].sum() - true * (true + 1) / 2
    return float(below / (true * (len(labels) - true)))


def check_classes(labels: ArrayLike) -> np.ndarray:
    """Labels [rows] as booleans.

    Raises:
      StudyError: there are none, or all are the same.
    """
    found = np.asarray(labels).astype(bool)
    if found.all() or not found.any():
        kind = "there are no labels" if not len(found) else f"all {len(found)} labels are {bool(found[0])}"
        raise StudyError(f"{kind}: nothing to tell apart; give rows of both classes")
    return found


def _ranked(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike | None,
    seed: int,
    resamples: int,
) -> Estimate:
    columns = check_classes(labels), np.asarray(scores, float)
    return bootstrap(statistic, *columns, groups=groups, seed=seed, resamples=resamples)


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
    """Mean label [rows] of the 1, 2, … rows of highest score; labels of equal scores are shared out evenly."""
    _, tie, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    shares = np.bincount(tie, labels) / sizes
    return np.cumsum(np.repeat(shares, sizes)) / np.arange(1, len(labels) + 1)
