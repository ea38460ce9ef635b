"""How far the mean profiles of models are from each other, within families and across them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.spatial.distance import pdist

from jaxtrace.statistics.intervals import interval

RESAMPLES = 1000
# Of mean profiles [M, F], between all pairs of models.
MEASURES: dict[str, Callable[[Float[np.ndarray, "M F"]], Float[np.ndarray, " pairs"]]] = {
    "pearson": lambda means: pdist(means, "correlation"),
    "l2": lambda means: pdist(means) / np.sqrt(means.shape[1]),
}


def family_distances(
    features: Float[np.ndarray, "n F"], models: np.ndarray, families: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Distances between the mean profiles of models of one family, and of different ones.

    Args:
      features: a profile for each answer, at depths that all models have.
      models, families: of each answer [n].
      seed: of the draws.

    Returns:
      A row per measure: "pearson", 1 − the correlation over the profile, and "l2", the root mean square difference.
      `within` and `across` are means over pairs of models; `gap` is across − within, with an interval from resampling
      each model's answers (the models stay), and p of the share of permutations of the families over the models (all
      kept in size) with as large a gap. No row where no two models are of one family, or all are.
    """
    names, first, of = np.unique(models, return_index=True, return_inverse=True)
    kin = families[first]
    same = _same(kin)
    if same.all() or not same.any():
        return pd.DataFrame()
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(of == i) for i in range(len(names))]
    drawn = [np.stack([features[rng.choice(own, len(own))].mean(0) for own in rows]) for _ in range(RESAMPLES)]
    shuffled = [_same(rng.permutation(kin)) for _ in range(RESAMPLES)]
    means = np.stack([features[own].mean(0) for own in rows])
    table = []
    for measure, distances in MEASURES.items():
        between = distances(means)
        gap = _gap(between, same)
        found = interval(gap, [_gap(distances(some), same) for some in drawn], len(features))
        as_large = sum(_gap(between, some) >= gap - 1e-12 for some in shuffled)
        table.append(
            {
                "measure": measure,
                "within": between[same].mean(),
                "across": between[~same].mean(),
                **found.columns("gap"),
                "p": (1 + as_large) / (1 + RESAMPLES),
                "models": len(names),
                "pairs_within": int(same.sum()),
                "pairs_across": int((~same).sum()),
                "n": len(features),
            }
        )
    return pd.DataFrame(table)


def _same(families: np.ndarray) -> np.ndarray:
    """Of all pairs, in `pdist`'s order, whether both are of one family."""
    i, j = np.triu_indices(len(families), 1)
    return families[i] == families[j]


def _gap(distances: np.ndarray, same: np.ndarray) -> float:
    return float(distances[~same].mean() - distances[same].mean())
