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
from jaxtrace.statistics.differences import difference, with_null
from jaxtrace.statistics.intervals import bootstrap
from jaxtrace.studies._shared.adjustment import adjusted_table
from jaxtrace.studies._shared.labels import model_of, row_groups, row_labels
from jaxtrace.studies._shared.progress import Progress
from jaxtrace.studies._shared.published import pad_with_zeros
from jaxtrace.studies._shared.result import Picture, Result
from jaxtrace.studies._shared.traces import single_runs, study_traces
from jaxtrace.studies.lens import classify
from jaxtrace.studies.lens.distances import family_distances
from jaxtrace.studies.lens.figures import lens_pictures
from jaxtrace.studies.lens.profiles import Profiles, describe_counts, gather_profiles, parse_metric
from jaxtrace.studies.lens.settings import LensConfig
from jaxtrace.traces.layers import layers_note
from jaxtrace.traces.trace import Trace

# A line of the table, its scores, the scores of guesses, the folds.
ScoredLine = tuple[dict[str, Any], classify.FoldScores, classify.FoldScores, classify.Splits]

QUESTION = "Do profiles through the layers tell {by} apart, beyond what length and the last layer tell?"
TEXTS = {
    "auc": "k nearest neighbours (Euclidean) on held-out answers. auc: one class against the others, mean over "
    "classes and folds; p_half: test of auc against 0.5; gain: its excess over guesses by the sizes of the classes, "
    "one random draw, whose auc is 0.5 only on average; p: test of gain. Intervals, p_half and p are corrected for "
    "folds that share training rows; folds with equal scores give p of a sign test over folds, and an interval that "
    "contains 0 (of auc, 0.5) unless it rejects that. p_plain is the published paired t test. Protocol 'grouped' holds "
    "whole groups out (prompts, stories; models if families are told apart), 'published' does not. Features: profile "
    "(all layers), without length (its residuals over ln steps and ln prompt tokens), last layer (its last "
    "entry; for lens_entropy the output's entropy), length (both logarithms alone), depth (the number of layers "
    "alone), zero-padded (layers of deeper models are zeros in others).",
    "accuracy": "Share of held-out answers assigned to their class, as in the table auc, without p_half.",
    "classes": "Size of each class: n answers in `groups` groups, mean steps and prompt tokens, the mean of the metric "
    "over all layers, and the depth (layer / layers) from which on the lens's top-1 is the final one.",
    "contrasts": "Mean over all layers of each class against all others (for two classes, the first against the "
    "second): difference, Hedges' g and p of a permutation test, over groups; control 'length' uses residuals over ln "
    "steps and ln prompt tokens.",
    "distances": "Distances between mean profiles of models, within families and across: 1 − Pearson's r, and root "
    "mean square. gap is across − within; its interval is over answers, its p over permutations of families.",
    "profiles": "Mean profile of each class with its standard deviation over answers, at each depth, by window.",
}


def run_study(config: LensConfig, out: Path, progress: Progress) -> Result:
    """Open or make the traces and return the study's result."""
    for metric in config.metric:  # an unknown one ends the study before a model runs
        parse_metric(metric)
    return lens(study_traces(config, out, progress), config)


def lens(traces: Mapping[str, Trace], config: LensConfig) -> Result:
    """Classify answers or models by their profiles of layer metrics.

    Returns:
      Tables "auc" and "accuracy" (of classification), "classes", "contrasts", "distances" (between models, if families
      are told apart) and "profiles"; pictures "profiles" and "map" (t-SNE), followed by the metric's name if there are
      several metrics.

    Raises:
      StudyError: a metric was not recorded, labels are missing, all answers are of one class, a class has fewer answers
        than folds, or folds have fewer training answers than the smallest number of neighbours.
    """
    runs = single_runs(traces)
    label = row_labels(runs, config.by, config.labels, published_checker=config.published_checker)
    group = model_of if config.by == "family" else row_groups(config.group)
    frames: dict[str, list[pd.DataFrame]] = {name: [] for name in TEXTS}
    pictures: dict[str, Picture] = {}
    notes: list[str] = []
    for metric in config.metric:
        profiles = gather_profiles(runs, metric, label, group=group, windows=config.windows, steps=config.steps)
        classify.check_classes(profiles.labels, config.folds)
        folds = _folds(profiles, config)
        features = profiles.on(profiles.grid(config.points))
        of_metric = _frames(profiles, features, folds, config)
        notes.append(f"{metric}: {_note_on_half(of_metric['auc'])}")
        for name, frame in of_metric.items():
            frame.insert(0, "metric", metric)
            frames[name].append(frame)
        suffix = f"_{metric}" if len(config.metric) > 1 else ""
        drawn = lens_pictures(profiles, features, config)
        pictures |= {name + suffix: picture for name, picture in drawn.items()}
        notes += [f"{metric}: {note}" for note in _notes(profiles, folds, config)]
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in frames.items() if parts}
    tables = {name: adjusted_table(frame, TEXTS[name], "metric") for name, frame in joined.items() if len(frame)}
    return Result("lens", QUESTION.format(by=f"'{config.by}'"), tables, pictures, tuple(notes))


def _folds(profiles: Profiles, config: LensConfig) -> dict[str, classify.Splits]:
    """Return the folds by protocol; the grouped one is empty if a class has too few groups."""
    published = classify.stratified(profiles.labels, config.folds, config.seed)
    most = classify.smallest_training_set(published)
    if min(config.neighbours) > most:
        raise StudyError(
            f"folds have {most} training answers, fewer than the {min(config.neighbours)} neighbours; "
            "give more answers, or fewer --neighbours"
        )
    grouped = classify.grouped(profiles.labels, profiles.groups, config.folds, config.seed)
    return {"grouped": grouped, "published": published}


def _frames(
    profiles: Profiles, features: np.ndarray, folds: Mapping[str, classify.Splits], config: LensConfig
) -> dict[str, pd.DataFrame]:
    flat = features.reshape(len(features), -1)
    with threadpool_limits(1):  # starting threads costs more than they save on so few rows
        scored = list(_classification(profiles, flat, folds, config))
    frames = {
        name: pd.DataFrame(
            [
                {**row, **_compared(name, scores, guesses, splits, _fewest(profiles, row["protocol"]))}
                for row, scores, guesses, splits in scored
            ]
        )
        for name in ("auc", "accuracy")
    }
    frames |= {
        "classes": pd.DataFrame(_classes(profiles, features, config)),
        "contrasts": pd.DataFrame(_contrasts(profiles, features, config)),
        "profiles": _mean_profiles(profiles, features, config.points),
    }
    if config.by == "family":
        models = profiles.answers["model"].to_numpy(str)
        frames["distances"] = family_distances(flat, models, profiles.labels, config.seed)
    return frames


def _classification(
    profiles: Profiles, flat: np.ndarray, folds: Mapping[str, classify.Splits], config: LensConfig
) -> Iterator[ScoredLine]:
    labels, lengths = profiles.labels, profiles.ln_lengths
    # name → (features, covariates to remove)
    published: dict[str, tuple[np.ndarray, np.ndarray | None]] = {"profile": (flat, None)}
    if not profiles.one_depth and config.zero_padding:
        published["zero-padded"] = (pad_with_zeros(profiles.values).reshape(len(flat), -1), None)
    controls: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "without length": (flat, lengths),
        "last layer": (np.stack([value[:, -1] for value in profiles.values]), None),
        "length": (lengths, None),
    }
    if not profiles.one_depth:
        controls["depth"] = (profiles.answers[["layers"]].to_numpy(float), None)
    feature_sets = {"grouped": published | controls, "published": published}
    for protocol, splits in folds.items():
        if not splits:
            continue
        guesses = classify.guesses(labels, splits, config.seed)
        counts = {"n": len(labels), "groups": len(np.unique(profiles.groups)), "folds": len(splits)}
        for name, (features, covariates) in feature_sets[protocol].items():
            for k in (k for k in config.neighbours if k <= classify.smallest_training_set(splits)):
                scores = classify.neighbours(features, labels, splits, k, covariates)
                yield {"protocol": protocol, "features": name, "k": k, **counts}, scores, guesses, splits


def _compared(
    name: str, scores: classify.FoldScores, guesses: classify.FoldScores, splits: classify.Splits, fewest: int
) -> dict[str, float]:
    score, guessed = getattr(scores, name), getattr(guesses, name)
    estimate, *_ = classify.over_folds(score, splits)
    gain, p, plain = classify.over_folds(score - guessed, splits)
    estimate = replace(estimate, low=max(estimate.low, 0.0), high=min(estimate.high, 1.0), fewest=fewest)
    gain, p_half = with_null(replace(gain, fewest=fewest), p), {}
    if name == "auc":
        _, p_half["p_half"], _ = classify.over_folds(score - 0.5, splits)
        estimate = with_null(estimate, p_half["p_half"], 0.5)
    columns = estimate.columns(name) | p_half
    return {**columns, "guesses": guessed.mean(), **gain.columns("gain"), "p": p, "p_plain": plain}


def _fewest(profiles: Profiles, protocol: str) -> int:
    """Return the number of units, which a protocol holds out as a whole, of the smallest class."""
    units = profiles.answers.groupby("label")["group"]
    return int((units.nunique() if protocol == "grouped" else units.size()).min())


def _classes(profiles: Profiles, features: np.ndarray, config: LensConfig) -> Iterator[dict[str, Any]]:
    level = features.mean((1, 2))
    for name, answers in profiles.answers.groupby("label"):
        groups = answers["group"].to_numpy(str)
        row = {"class": name, "n": len(answers), "groups": answers["group"].nunique()}
        row |= {"steps": answers["steps"].mean(), "prompt_tokens": answers["prompt_tokens"].mean()}
        row |= bootstrap(np.mean, level[answers.index], groups=groups, seed=config.seed).columns("mean")
        depth = answers["prediction_depth"].to_numpy(float)
        if np.isfinite(depth).all():
            row |= bootstrap(np.mean, depth, groups=groups, seed=config.seed).columns("prediction_depth")
        yield row


def _contrasts(profiles: Profiles, features: np.ndarray, config: LensConfig) -> Iterator[dict[str, Any]]:
    labels, groups = profiles.labels, profiles.groups
    level = features.mean((1, 2))
    names = np.unique(labels)
    for control, values in (("none", level), ("length", residualize(level, profiles.ln_lengths))):
        for name in names if len(names) > 2 else names[:1]:
            inside = labels == name
            gap = difference(
                values[inside], values[~inside], groups_a=groups[inside], groups_b=groups[~inside], seed=config.seed
            )
            yield {
                "class": name,
                "against": "the rest" if len(names) > 2 else names[1],
                "control": control,
                **gap.columns("g"),
                "n_against": gap.n[1],
            }


def _mean_profiles(profiles: Profiles, features: np.ndarray, points: int) -> pd.DataFrame:
    grid, parts = profiles.grid(points), []
    for name, answers in profiles.answers.groupby("label"):
        of_class = features[answers.index.to_numpy()]
        for window, (mean, sd) in enumerate(zip(of_class.mean(0), of_class.std(0, ddof=1), strict=True), 1):
            columns = {"class": name, "window": window, "depth": grid, "mean": mean, "sd": sd, "n": len(answers)}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _note_on_half(auc: pd.DataFrame) -> str:
    """Return the AUC of whole profiles against 0.5, at each k: under the grouped protocol if there is one."""
    profile = auc[(auc["features"] == "profile") & (auc["protocol"] == auc["protocol"].iloc[0])]
    tests = [
        f"k = {row.k}: {row.auc:.3f} [{row.auc_low:.3f}, {row.auc_high:.3f}], p = {row.p_half:.2g}"
        for row in profile.itertuples()
    ]
    return (
        f"AUC of profiles against 0.5 ({auc['protocol'].iloc[0]} protocol): {'; '.join(tests)}. gain compares with one "
        f"random draw of guesses, whose AUC is {profile['guesses'].iloc[0]:.3f}"
    )


def _notes(profiles: Profiles, folds: Mapping[str, classify.Splits], config: LensConfig) -> Iterator[str]:
    if profiles.excluded:
        yield f"excluded answers: {describe_counts(profiles.excluded)}"
    for where, text in profiles.partial.items():
        yield layers_note(where, text)
    if not profiles.one_depth:
        models = profiles.answers["layers"].nunique() > 1 or not profiles.partial
        what = "models of several depths" if models else "answers with values in different layers"
        yield f"{what}: profiles are interpolated at {config.points} relative depths that all cover"
        if config.zero_padding:
            yield "zero-padded profiles reveal a model's number of layers, whatever it computes: see the row 'depth'"
    unit = "models" if config.by == "family" else "groups"
    if not folds["grouped"]:
        yield f"a class has too few {unit} to hold any out: only the published protocol is reported"
    elif (count := len(folds["grouped"])) < config.folds:
        yield f"the grouped protocol has {count} folds, because a class has too few {unit} for more"
    for protocol, splits in folds.items():
        most = classify.smallest_training_set(splits) if splits else np.inf
        if large := sorted(k for k in config.neighbours if k > most):
            yield f"k of {', '.join(map(str, large))} skipped: {protocol} folds have {most} training answers"
