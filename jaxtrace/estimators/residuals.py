"""Estimators from the residual stream: the spread of samples, and distances from other answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float
from sklearn.covariance import EmpiricalCovariance, LedoitWolf, MinCovDet
from sklearn.decomposition import KernelPCA
from sklearn.model_selection import GroupKFold

from jaxtrace.errors import LackingError
from jaxtrace.estimators.registry import estimator
from jaxtrace.estimators.scores import Scores, drawn
from jaxtrace.traces.requirements import prompt_numbers, require_metrics
from jaxtrace.traces.trace import Trace

Position = Literal["last", "mean"]
Distance = Callable[[Float[np.ndarray, "n D"]], Float[np.ndarray, " n"]]

REGULARISER = 1e-3  # added to the eigenvalues of the samples' covariance
LEAST_EIGENVALUE = 1e-10
COMPONENTS = 100  # of the kernel principal components
FOLDS = 5
MAHALANOBIS = "Lee et al. 2018 (arXiv 1807.03888)"


@estimator(
    formula="mean ln eigenvalue of Z Zᵀ + 1e-3 I; Z [samples, D] the residuals of layer ⌊L/2⌋ at the last step, less "
    "their means over D",
    source="Chen et al. 2024, INSIDE (arXiv 2402.03744)",
    metrics=("residuals",),
    passes="samples",
)
def eigen_score(trace: Trace, *, layer: int | None = None) -> Scores:
    """Return the EigenScore of the answers to each prompt: the log-volume that their residuals span.

    Args:
      layer: layer of the residuals; None for ⌊L/2⌋.
    """
    features = residual_features("eigen_score", trace, trace.num_layers // 2 if layer is None else layer, "last")
    numbers, scores = prompt_numbers(trace), np.full(len(features), np.nan)
    for number in np.unique(numbers):
        rows = np.flatnonzero((numbers == number) & np.isfinite(features[:, 0]))
        if len(rows) > 1:
            scores[rows] = log_volume(features[rows])
    return Scores(scores)


def log_volume(samples: Float[np.ndarray, "n D"]) -> float:
    """Return mean ln eigenvalue of Z Zᵀ + 1e-3 I, Z the samples less their means over D."""
    centered = samples - samples.mean(1, keepdims=True)
    values = np.linalg.eigvalsh(centered @ centered.T + REGULARISER * np.eye(len(samples)))
    return float(np.log(np.maximum(values, LEAST_EIGENVALUE)).mean())


@estimator(
    formula="√((x − μ)ᵀ Σ⁻¹ (x − μ)); x the residual of a layer, mean over the answer's steps; μ, Σ of other answers",
    source=MAHALANOBIS,
    metrics=("residuals",),
    passes="fit",
)
def mahalanobis(trace: Trace, *, training: Trace | None = None, layer: int | None = None) -> Scores:
    """Return the Mahalanobis distance of each answer from other answers.

    Args:
      training: trace that μ and Σ are fitted to; None for the answers to other prompts of the trace, in 5 folds.
      layer: layer of the residuals; None for the last recorded one.

    Raises:
      LackingError: the layer was not recorded, there is one prompt only, or a prompt of the trace is in `training`.
    """
    return Scores(_distances("mahalanobis", trace, training, layer, mahalanobis_distance))


@estimator(
    formula="Mahalanobis distance from other answers − the one from unrelated answers",
    source="Ren et al. 2023 (arXiv 2209.15558); roots, as in lm-polygraph",
    metrics=("residuals",),
    passes="fit",
)
def relative_mahalanobis(
    trace: Trace, *, background: Trace, training: Trace | None = None, layer: int | None = None
) -> Scores:
    """Return the Mahalanobis distance of each answer less its distance from answers to unrelated prompts.

    The source subtracts squared distances, lm-polygraph and this function their roots.

    Args:
      background: trace of unrelated prompts.
      training, layer: see `mahalanobis`.
    """
    near = _distances("relative_mahalanobis", trace, training, layer, mahalanobis_distance)
    return Scores(near - _distances("relative_mahalanobis", trace, background, layer, mahalanobis_distance))


@estimator(
    formula="squared robust Mahalanobis distance among 100 kernel principal components (RBF, γ = 1/D) of the residual",
    source="Yoo et al. 2022 (arXiv 2203.01677)",
    metrics=("residuals",),
    passes="fit",
)
def rde(trace: Trace, *, training: Trace | None = None, layer: int | None = None, seed: int = 42) -> Scores:
    """Return the robust density estimate of each answer: a squared distance that outliers of the fit do not shape.

    Args:
      training, layer: see `mahalanobis`.
      seed: seed of the components and of the minimum covariance determinant.
    """
    return Scores(_distances("rde", trace, training, layer, lambda fitted: robust_distance(fitted, seed)))


def mahalanobis_distance(fitted: Float[np.ndarray, "n D"]) -> Distance:
    """Return the function from points [m, D] to their Mahalanobis distances [m] from the fitted ones.

    The covariance divides by n − 1 where n > D, as in lm-polygraph. Fewer rows do not determine it; it is then shrunk
    towards a multiple of the identity (Ledoit and Wolf 2004).
    """
    count, width = fitted.shape
    if count > width:
        model, scale = EmpiricalCovariance().fit(fitted), (count - 1) / count
    else:
        model, scale = LedoitWolf().fit(fitted), 1.0
    return lambda points: np.sqrt(np.maximum(model.mahalanobis(points) * scale, 0.0))


def robust_distance(fitted: Float[np.ndarray, "n D"], seed: int = 42) -> Distance:
    """Return the function from points [m, D] to their squared robust distances [m] from the fitted ones."""
    kernel = KernelPCA(min(COMPONENTS, len(fitted) - 1), kernel="rbf", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a covariance of few rows is not of full rank
        components = kernel.fit_transform(fitted)
        model = _robust_covariance(components, seed)
    return lambda points: model.mahalanobis(kernel.transform(points))


def _robust_covariance(points: Float[np.ndarray, "n D"], seed: int) -> MinCovDet:
    """Return the minimum covariance determinant of the smallest share of points that determines one."""
    for share in (None, 0.9):
        try:
            return MinCovDet(random_state=seed, support_fraction=share).fit(points)
        except ValueError:
            continue
    return MinCovDet(random_state=seed, support_fraction=1.0).fit(points)


def residual_features(name: str, trace: Trace, layer: int | None, position: Position) -> Float[np.ndarray, "rows D"]:
    """Return the residual of a layer for each answer, float64; NaN for one that drew no token or is not finite.

    Args:
      name: name of the estimator, for messages.
      layer: recorded layer; None for the last recorded one.
      position: "last" for the step that draws the last token, "mean" for the mean over the steps of the answer.

    Raises:
      LackingError: the layer was not recorded.
    """
    require_metrics({name: trace}, "residuals")
    recorded = [*trace.info.get("residuals", ())]
    layer = max(recorded) if layer is None else layer
    if layer not in recorded:
        raise LackingError(f"{name}: needs residuals of layer {layer}; trace it again with --residuals {layer}")
    index, width = recorded.index(layer), trace.rows[0].metrics["residuals"].shape[-1]
    features = np.full((len(trace.rows), width), np.nan)
    for i, row in enumerate(trace.rows):
        if len(row.drawn_steps):
            steps = drawn(row, "residuals")[:, index]
            features[i] = steps[-1] if position == "last" else steps.mean(0)
    features[~np.isfinite(features).all(1)] = np.nan  # float16 overflows where residuals are large
    return features


def _other_model(trace: Trace, training: Trace) -> bool:
    """Return True if two traces are of different checkpoints, as far as they name them."""
    return len({trace.info.get("checkpoint"), training.info.get("checkpoint")} - {None}) > 1


def _distances(
    name: str, trace: Trace, training: Trace | None, layer: int | None, fit: Callable[[np.ndarray], Distance]
) -> Float[np.ndarray, " rows"]:
    """Return the distance of each answer from a fit to other prompts' answers."""
    features, numbers = residual_features(name, trace, layer, "mean"), prompt_numbers(trace)
    known, distances = np.isfinite(features[:, 0]), np.full(len(features), np.nan)
    if training is not None:
        if shared := {row.prompt_key for row in training.rows} & {row.prompt_key for row in trace.rows}:
            raise LackingError(f"{name}: {len(shared)} prompts are also in the trace to fit; give one of other prompts")
        fitted = residual_features(name, training, layer, "mean")
        fitted = fitted[np.isfinite(fitted[:, 0])]
        if len(fitted) < 2 or fitted.shape[1] != features.shape[1] or _other_model(trace, training):
            raise LackingError(f"{name}: needs two answers of the same model to fit; give another trace")
        distances[known] = fit(fitted)(features[known])
        return distances
    rows, groups = np.flatnonzero(known), len(np.unique(numbers[known]))
    if groups < 3:
        raise LackingError(f"{name}: needs answers to 3 prompts; give a longer trace, or one to fit (--training)")
    for others, held in GroupKFold(min(FOLDS, groups)).split(rows, groups=numbers[rows]):
        distances[rows[held]] = fit(features[rows[others]])(features[rows[held]])
    return distances
