"""Pictures of the lens study: mean profiles by relative depth, and a map of all profiles."""

from __future__ import annotations

from functools import partial
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from jaxtrace.figures.theme import Theme, fill_band, label_gaps, legend, new_panel, point_marker
from jaxtrace.statistics.intervals import FEW
from jaxtrace.studies._shared.result import Picture
from jaxtrace.studies.lens.profiles import Profiles
from jaxtrace.studies.lens.settings import LensConfig

PERPLEXITY, ITERATIONS = 20, 300  # settings of the published t-SNE
MAP_ANSWERS = 2000  # largest number of answers in a map


def lens_pictures(profiles: Profiles, features: np.ndarray, config: LensConfig) -> dict[str, Picture]:
    """Return the picture "profiles" and, for at least four answers that differ, "map".

    Args:
      features: profiles on the grid of depths [n, W, P].
    """
    grid, metric = profiles.grid(config.points), profiles.metric
    by_model = config.by == "family"
    models = " Thin lines are single models." if by_model else ""
    windows = ", mean over windows" if features.shape[1] > 1 else ""
    pictures = {
        "profiles": Picture(
            partial(profile_figure, profiles, features.mean(1), grid, by_model),
            f"{metric} by relative depth (layer / layers){windows}: mean of each class and one standard deviation over "
            f"its answers.{models}",
            few=bool(profiles.answers.groupby("label")["group"].nunique().min() < FEW),
        )
    }
    if len(features) > 3 and (features != features[0]).any():
        chosen = np.sort(np.random.default_rng(config.seed).permutation(len(features))[:MAP_ANSWERS])
        perplexity = min(PERPLEXITY, (len(chosen) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=config.seed)
        with threadpool_limits(1):
            places = tsne.fit_transform(features[chosen].reshape(len(chosen), -1))
        pictures["map"] = Picture(
            partial(map_figure, places, profiles.labels[chosen], metric),
            f"t-SNE of the {metric} profiles of {len(chosen)} answers: neighbours are similar; axes, and distances "
            "between clusters, have no meaning.",
        )
    return pictures


def profile_figure(profiles: Profiles, features: np.ndarray, grid: np.ndarray, by_model: bool, theme: Theme) -> Figure:
    """Draw mean and standard deviation of each class's profiles [n, P], and with `by_model` a line per model."""
    y = f"{profiles.metric} ({profiles.unit})" if profiles.unit else profiles.metric
    # Layers without values leave gaps in the profiles of models of one depth.
    points = profiles.recorded if profiles.one_depth else grid
    drawn = np.full((len(features), len(points)), np.nan)
    drawn[:, np.isin(points, grid)] = features
    figure, axes = new_panel(theme, 6.2, 3.4, f"{profiles.metric} through the layers", "relative depth", y)
    for (name, answers), color in zip(profiles.answers.groupby("label"), cycle(theme.lines), strict=False):
        rows = drawn[answers.index.to_numpy()]
        mean, sd = rows.mean(0), rows.std(0, ddof=1)
        marker = point_marker(mean)
        fill_band(axes, points, mean - sd, mean + sd, color=color, alpha=0.16)
        axes.plot(points, mean, color=color, linewidth=1.8, label=f"{name} ({len(answers)})", **marker)
        for _, of_model in answers.groupby("model") if by_model else ():
            of_rows = drawn[of_model.index.to_numpy()]
            axes.plot(points, of_rows.mean(0), color=color, linewidth=0.7, alpha=0.7, **marker)
    label_gaps(axes, points, drawn)
    axes.set_xlim(points[0], 1)
    legend(axes, theme)
    return figure


def map_figure(places: np.ndarray, labels: np.ndarray, metric: str, theme: Theme) -> Figure:
    """Draw places [n, 2] coloured by label."""
    figure, axes = new_panel(theme, 4.6, 3.8, f"t-SNE of {metric} profiles")
    for name, color in zip(np.unique(labels), cycle(theme.lines), strict=False):
        axes.scatter(*places[labels == name].T, s=11, color=color, linewidths=0, alpha=0.8, label=name)
    axes.set_xticks([])
    axes.set_yticks([])
    legend(axes, theme)
    return figure
