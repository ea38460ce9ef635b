"""Pictures of `study lens`: mean profiles by relative depth, and a map of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from jaxtrace.figures.theme import Theme, dress, legend, new_figure
from jaxtrace.studies._shared.result import Picture
from jaxtrace.studies.lens.profiles import Profiles
from jaxtrace.studies.lens.settings import LensConfig

PERPLEXITY, ITERATIONS = 20, 300  # of the t-SNE, as published
MOST = 2000  # answers of a map
OTHERS = ("#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#0072b2", "#d55e00")  # beside the theme's, of the same palette


def pictures(profiles: Profiles, features: np.ndarray, config: LensConfig) -> dict[str, Picture]:
    """The picture "profiles" and, of four answers or more, "map"; features [n, W, P] are on the grid of depths."""
    grid, metric = profiles.grid(config.points), profiles.metric
    by_model = config.by == "family"
    models = " Thin lines are single models." if by_model else ""
    windows = ", mean over windows" if features.shape[1] > 1 else ""
    found = {
        "profiles": Picture(
            lambda theme: profile_figure(profiles, features.mean(1), grid, theme, by_model=by_model),
            f"{metric} by relative depth (layer / layers){windows}: mean of each class and one standard deviation over "
            f"its answers.{models}",
        )
    }
    if len(features) > 3:
        chosen = np.sort(np.random.default_rng(config.seed).permutation(len(features))[:MOST])
        places = embedded(features[chosen].reshape(len(chosen), -1), config.seed)
        labels = profiles.answers["label"].to_numpy(str)[chosen]
        found["map"] = Picture(
            lambda theme: map_figure(places, labels, metric, theme),
            f"t-SNE of the {metric} profiles of {len(chosen)} answers: neighbours are alike; axes, and distances "
            "between groups, mean nothing.",
        )
    return found


def embedded(features: np.ndarray, seed: int) -> np.ndarray:
    """Places [n, 2] of features [n, F] by t-SNE from a start by PCA."""
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=seed)
    with threadpool_limits(1):
        return tsne.fit_transform(features)


def profile_figure(
    profiles: Profiles, features: np.ndarray, grid: np.ndarray, theme: Theme, *, by_model: bool
) -> Figure:
    """Mean and standard deviation of each class's profiles [n, P], and with `by_model` a line for each model."""
    figure = new_figure(theme, 6.2, 3.4)
    axes = figure.subplots()
    unit = f" ({profiles.unit})" if profiles.unit else ""
    dress(axes, theme, f"{profiles.metric} through the layers", "relative depth", profiles.metric + unit)
    answers = profiles.answers
    for (name, own), color in zip(answers.groupby("label"), _colors(theme), strict=False):
        rows = features[own.index.to_numpy()]
        mean, sd = rows.mean(0), rows.std(0, ddof=1)
        axes.fill_between(grid, mean - sd, mean + sd, color=color, alpha=0.16, linewidth=0)
        axes.plot(grid, mean, color=color, linewidth=1.8, label=f"{name} ({len(own)})")
        for _, of_model in own.groupby("model") if by_model else ():
            axes.plot(grid, features[of_model.index.to_numpy()].mean(0), color=color, linewidth=0.7, alpha=0.7)
    axes.set_xlim(grid[0], 1)
    legend(axes, theme)
    return figure


def map_figure(places: np.ndarray, labels: np.ndarray, metric: str, theme: Theme) -> Figure:
    """Places [n, 2] coloured by label."""
    figure = new_figure(theme, 4.6, 3.8)
    axes = figure.subplots()
    dress(axes, theme, f"t-SNE of {metric} profiles")
    for name, color in zip(np.unique(labels), _colors(theme), strict=False):
        own = places[labels == name]
        axes.scatter(*own.T, s=11, color=color, linewidths=0, alpha=0.8, label=name)
    axes.set_xticks([])
    axes.set_yticks([])
    legend(axes, theme)
    return figure


def _colors(theme: Theme) -> Iterator[str]:
    return cycle(dict.fromkeys((theme.first, theme.second, *OTHERS)))
