"""Distances between the mean profiles of models, within families and across them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.spatial.distance import pdist

from jaxtrace.statistics.intervals import bootstrap

RESAMPLES = 1000
# Distances between all pairs of mean profiles [M, F].
MEASURES: dict[str, Callable[[Float[np.ndarray, "M F"]], Float[np.ndarray, " pairs"]]] = {
    "pearson": lambda means: pdist(means, "correlation"),
    "l2": lambda means: pdist(means) / np.sqrt(means.shape[1]),
}


def family_distances(
    features: Float[np.ndarray, "n F"], models: np.ndarray, families: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Compare distances between mean profiles of models of one family and of different families.

    Args:
      features: profile of each answer, at depths that all models have.
      models, families: model and family of each answer [n].

    Returns:
      One row per measure: "pearson", 1 − the correlation over the profile, and "l2", the root mean square difference.
      `within` and `across` are means over pairs of models. `gap` is across − within, with an interval from resampling
      each model's answers (the models stay). p is the share of permutations of the families over the models, sizes
      kept, with a gap at least as large. Empty unless some pairs of models share a family and some do not.
    """
    names, first, model_index = np.unique(models, return_index=True, return_inverse=True)
    model_families = families[first]
    same = _same_family(model_families)
    if same.all() or not same.any():
        return pd.DataFrame()
    rng = np.random.default_rng(seed)
    permuted = [_same_family(rng.permutation(model_families)) for _ in range(RESAMPLES)]
    means = _means(features, model_index)
    table = []
    for measure, distances in MEASURES.items():
        between = distances(means)
        gap = _gap(between, same)
        estimate = bootstrap(
            lambda rows, index, distances=distances: _gap(distances(_means(rows, index)), same),
            *(features, model_index),
            strata=model_index,
            seed=seed,
            resamples=RESAMPLES,
        )
        as_large = sum(_gap(between, permutation) >= gap - 1e-12 for permutation in permuted)
        table.append(
            {
                "measure": measure,
                "within": between[same].mean(),
                "across": between[~same].mean(),
                **estimate.columns("gap"),
                "p": (1 + as_large) / (1 + RESAMPLES),
                "models": len(names),
                "pairs_within": int(same.sum()),
                "pairs_across": int((~same).sum()),
                "n": len(features),
            }
        )
    return pd.DataFrame(table)


def _means(features: np.ndarray, model_index: np.ndarray) -> np.ndarray:
    return np.stack([features[model_index == i].mean(0) for i in range(int(model_index.max()) + 1)])


def _same_family(families: np.ndarray) -> np.ndarray:
    """Return for each pair, in `pdist`'s order, True if both are of one family."""
    i, j = np.triu_indices(len(families), 1)
    return families[i] == families[j]


def _gap(distances: np.ndarray, same: np.ndarray) -> float:
    return float(distances[~same].mean() - distances[same].mean())
