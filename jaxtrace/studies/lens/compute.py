"""`study lens`: which kinds of answers, and which models, do profiles through the layers tell apart?

After Entropy-Lens (Ali, Caso, Irwin, Liò; arXiv 2502.16570).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from jaxtrace.errors import StudyError
from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.differences import difference
from jaxtrace.statistics.intervals import bootstrap
from jaxtrace.studies._shared.labels import grouping, labelling, of_model
from jaxtrace.studies._shared.progress import SILENT, Progress
from jaxtrace.studies._shared.result import Picture, Result, Table
from jaxtrace.studies._shared.traces import traces_of
from jaxtrace.studies.lens import classify
from jaxtrace.studies.lens import figures as lens_pictures
from jaxtrace.studies.lens.distances import family_distances
from jaxtrace.studies.lens.profiles import Profiles, gather_profiles, parse_metric, single_runs, words
from jaxtrace.studies.lens.settings import LensConfig
from jaxtrace.traces.trace import Trace

Scored = tuple[
    dict[str, Any], classify.Scores, classify.Scores, classify.Splits
]  # a line, its scores, those of guesses

QUESTION = "Do profiles through the layers tell {by} apart, beyond what length and the last layer tell?"
TEXTS = {
    "auc": "k nearest neighbours (Euclidean) on held-out answers. auc: one class against the rest, mean over classes "
    "and folds; gain: what it is above that of guesses by the sizes of the classes. Intervals and p are corrected for "
    "folds that share training rows (all folds alike make an interval without width); p_plain is the published paired "
    "t test. Protocol 'grouped' holds whole groups out (prompts, stories; models where families are told apart), "
    "'published' does not. Features: profile (all layers), without length (its residuals over ln steps and ln prompt "
    "tokens), last layer (its last entry: of lens_entropy, the output's entropy), length (both logarithms alone), "
    "depth (the number of layers alone), zero-padded (layers of deeper models are zeros in others).",
    "accuracy": "The same of the share of answers that are given their class.",
    "classes": "What is in each class: n answers in so many groups, mean steps and prompt tokens, the mean of the "
    "metric over all layers, and the depth (layer / layers) from which on the lens's top-1 is the final one.",
    "contrasts": "Mean over all layers of each class against all others (of two classes, the first against the "
    "second): difference, Hedges' g and p of a permutation test, over groups; control 'length': of residuals over ln "
    "steps and ln prompt tokens.",
    "distances": "Between mean profiles of models, within families and across: 1 − Pearson's r, and root mean square. "
    "gap is across − within; its interval is over answers, its p over permutations of families.",
    "profiles": "The mean profile of each class with its standard deviation over answers, at each depth, by window.",
}


def run_study(config: LensConfig, out: Path, progress: Progress = SILENT) -> Result:
    """Open or make the traces and return the study's result.

    Raises:
      JaxtraceError: a setting, a trace, a prompt or a model is unusable.
    """
    return lens(traces_of(config, out, progress), config)


def lens(traces: Mapping[str, Trace], config: LensConfig) -> Result:
    """Profiles of metrics of layers, and how well they tell classes of answers or models apart.

    Args:
      traces: by label.
      config: what to tell apart, by which metrics.

    Returns:
      Tables "auc" and "accuracy" (of classification), "classes", "contrasts", "distances" (between models, where
      families are told apart) and "profiles"; pictures "profiles" and "map" (t-SNE), with the metric's name behind them
      where there are several.

    Raises:
      StudyError: a metric was not recorded, labels are missing, all are one class, one has fewer answers than folds, or
        folds have fewer answers to learn from than the least number of neighbours.
    """
    for metric in config.metric:
        parse_metric(metric)
    runs = single_runs(traces)
    label = labelling(runs, config.by, config.labels, letter_anywhere=config.letter_anywhere)
    group = of_model if config.by == "family" else grouping(config.group)
    options = {"group": group, "windows": config.windows, "steps": config.steps}
    frames: dict[str, list[pd.DataFrame]] = {name: [] for name in TEXTS}
    pictures: dict[str, Picture] = {}
    notes: list[str] = []
    for metric in config.metric:
        profiles = gather_profiles(runs, metric, label, **options)
        classify.check_classes(_labels(profiles), config.folds)
        folds = _folds(profiles, config)
        features = profiles.on(profiles.grid(config.points))
        for name, frame in _frames(profiles, features, folds, config).items():
            frame.insert(0, "metric", metric)
            frames[name].append(frame)
        suffix = f"_{metric}" if len(config.metric) > 1 else ""
        drawn = lens_pictures.pictures(profiles, features, config)
        pictures |= {name + suffix: picture for name, picture in drawn.items()}
        notes += [f"{metric}: {note}" for note in _notes(profiles, folds, config)]
    found = {name: pd.concat(some, ignore_index=True) for name, some in frames.items() if some}
    tables = {name: Table(frame, TEXTS[name]) for name, frame in found.items() if len(frame)}
    return Result("lens", QUESTION.format(by=f"'{config.by}'"), tables, pictures, tuple(notes))


def _folds(profiles: Profiles, config: LensConfig) -> dict[str, classify.Splits]:
    """By protocol; the grouped one has none where a class has too few groups."""
    labels, groups = _labels(profiles), profiles.answers["group"].to_numpy(str)
    published = classify.stratified(labels, config.folds, config.seed)
    most = classify.fewest_known(published)
    if min(config.neighbours) > most:
        raise StudyError(
            f"folds have {most} answers to learn from, fewer than the {min(config.neighbours)} neighbours; "
            "give more answers, or fewer --neighbours"
        )
    return {"grouped": classify.grouped(labels, groups, config.folds, config.seed), "published": published}


def _frames(
    profiles: Profiles, features: np.ndarray, folds: Mapping[str, classify.Splits], config: LensConfig
) -> dict[str, pd.DataFrame]:
    flat = features.reshape(len(features), -1)
    with threadpool_limits(1):  # more threads than one cost more than they bring for so few rows
        scored = list(_classification(profiles, flat, folds, config))
    frames = {
        name: pd.DataFrame(
            [{**row, **_compared(name, scores, guesses, splits)} for row, scores, guesses, splits in scored]
        )
        for name in ("auc", "accuracy")
    }
    frames |= {
        "classes": pd.DataFrame(_classes(profiles, features, config)),
        "contrasts": pd.DataFrame(_contrasts(profiles, features, config)),
        "profiles": _mean_profiles(profiles, features, config.points),
    }
    if config.by == "family":
        models, families = (profiles.answers[name].to_numpy(str) for name in ("model", "label"))
        frames["distances"] = family_distances(flat, models, families, config.seed)
    return frames


def _labels(profiles: Profiles) -> np.ndarray:
    return profiles.answers["label"].to_numpy(str)


def _lengths(profiles: Profiles) -> np.ndarray:
    return np.log(profiles.answers[["steps", "prompt_tokens"]].to_numpy(float))


def _classification(
    profiles: Profiles, flat: np.ndarray, folds: Mapping[str, classify.Splits], config: LensConfig
) -> Iterator[Scored]:
    labels, groups, lengths = _labels(profiles), profiles.answers["group"].nunique(), _lengths(profiles)
    of = {"profile": (flat, None)}
    if not profiles.one_depth and config.zero_padding:
        of["zero-padded"] = (profiles.padded().reshape(len(flat), -1), None)
    controls = {
        "without length": (flat, lengths),
        "last layer": (np.stack([value[:, -1] for value in profiles.values]), None),
        "length": (lengths, None),
    }
    if not profiles.one_depth:
        controls["depth"] = (profiles.answers[["layers"]].to_numpy(float), None)
    sets = {"grouped": of | controls, "published": of}
    for protocol, splits in folds.items():
        if not splits:
            continue
        guesses = classify.guesses(labels, splits, config.seed)
        for name, (features, covariates) in sets[protocol].items():
            for k in (k for k in config.neighbours if k <= classify.fewest_known(splits)):
                scores = classify.neighbours(features, labels, splits, k, covariates)
                counted = {"n": len(labels), "groups": groups, "folds": len(splits)}
                yield {"protocol": protocol, "features": name, "k": k, **counted}, scores, guesses, splits


def _compared(
    name: str, scores: classify.Scores, guesses: classify.Scores, splits: classify.Splits
) -> dict[str, float]:
    own, guessed = getattr(scores, name), getattr(guesses, name)
    found, *_ = classify.over_folds(own, splits)
    gain, p, plain = classify.over_folds(own - guessed, splits)
    found = replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))
    return {**found.columns(name), "guesses": guessed.mean(), **gain.columns("gain"), "p": p, "p_plain": plain}


def _classes(profiles: Profiles, features: np.ndarray, config: LensConfig) -> Iterator[dict[str, Any]]:
    answers, level = profiles.answers, features.mean((1, 2))
    for name, own in answers.groupby("label"):
        at = own.index.to_numpy()
        groups = own["group"].to_numpy(str)
        row = {"class": name, "n": len(own), "groups": own["group"].nunique()}
        row |= {"steps": own["steps"].mean(), "prompt_tokens": own["prompt_tokens"].mean()}
        row |= bootstrap(np.mean, level[at], groups=groups, seed=config.seed).columns("mean")
        depth = own["prediction_depth"].to_numpy(float)
        if np.isfinite(depth).all():
            row |= bootstrap(np.mean, depth, groups=groups, seed=config.seed).columns("prediction_depth")
        yield row


def _contrasts(profiles: Profiles, features: np.ndarray, config: LensConfig) -> Iterator[dict[str, Any]]:
    labels, groups = _labels(profiles), profiles.answers["group"].to_numpy(str)
    level = features.mean((1, 2))
    names = np.unique(labels)
    for control, values in (("none", level), ("length", residualize(level, _lengths(profiles)))):
        for name in names if len(names) > 2 else names[:1]:
            own = labels == name
            found = difference(values[own], values[~own], groups_a=groups[own], groups_b=groups[~own], seed=config.seed)
            yield {
                "class": name,
                "against": "the rest" if len(names) > 2 else names[1],
                "control": control,
                **found.difference.columns("difference"),
                **found.effect.columns("g"),
                "p": found.p,
                "n": found.n[0],
                "n_against": found.n[1],
            }


def _mean_profiles(profiles: Profiles, features: np.ndarray, points: int) -> pd.DataFrame:
    grid, parts = profiles.grid(points), []
    for name, own in profiles.answers.groupby("label"):
        of_class = features[own.index.to_numpy()]
        for window, (mean, sd) in enumerate(zip(of_class.mean(0), of_class.std(0, ddof=1), strict=True), 1):
            columns = {"class": name, "window": window, "depth": grid, "mean": mean, "sd": sd, "n": len(own)}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _notes(profiles: Profiles, folds: Mapping[str, classify.Splits], config: LensConfig) -> Iterator[str]:
    if profiles.left_out:
        yield f"left out: {words(profiles.left_out)}"
    if not profiles.one_depth:
        yield f"models of several depths: profiles are read off at {config.points} depths that all have"
        if config.zero_padding:
            yield "zero-padded profiles tell a model by its number of layers, whatever it computes: see the row 'depth'"
    held = "models" if config.by == "family" else "groups"
    if not folds["grouped"]:
        yield f"some class is of too few {held} to hold any out: only the published protocol is reported"
    elif (count := len(folds["grouped"])) < config.folds:
        yield f"the grouped protocol has {count} folds, as some class has no {held} for more"
    for protocol, splits in folds.items():
        most = classify.fewest_known(splits) if splits else np.inf
        if large := sorted(k for k in config.neighbours if k > most):
            yield f"k of {', '.join(map(str, large))} left out: {protocol} folds have {most} answers to learn from"
