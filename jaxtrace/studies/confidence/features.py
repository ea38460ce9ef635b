"""Features of a confidence: numbers per drawn token, and per answer, from whatever a trace recorded."""

from __future__ import annotations

import itertools
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from jaxtrace.errors import StudyError
from jaxtrace.estimators.probability import surprise_z
from jaxtrace.estimators.registry import find_estimators
from jaxtrace.schema import DERIVED, METRICS, feature_names
from jaxtrace.traces.depth import row_prediction_depth
from jaxtrace.traces.layers import LayerCount, layer_count, layers_note, layers_text, present_layers, select_layers
from jaxtrace.traces.reader import split_runs
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

DEPTHS = ("early", "middle", "late")
AGGREGATES = ("first", "mean", "max")
IDENTIFIERS = ["trace", "row", "prompt", "group", "length"]


@dataclass(frozen=True)
class FeatureTables:
    """Answers of some traces as tables.

    Attributes:
      answers: one row per answer that drew a token: IDENTIFIERS (label of the trace, number of the row in it, id of the
        prompt, number of the group that it is held out with, number of drawn tokens), then the answer's features.
      tokens: one row per drawn token: `answer`, the number of its answer in `answers`, `step`, then its features.
      runs: rows of the answers by run, in the same order, with the metrics of some estimators. Given text counts as
        generated, less its last step, which no token follows.
      notes: numbers of the layers that features are made of, unless these are all.
    """

    answers: pd.DataFrame
    tokens: pd.DataFrame
    runs: tuple[Trace, ...]
    notes: tuple[str, ...] = ()

    @property
    def answer_features(self) -> pd.DataFrame:
        """Features of answers [answers, features]."""
        return self.answers.drop(columns=IDENTIFIERS)

    @property
    def token_features(self) -> pd.DataFrame:
        """Features of tokens [tokens, features]."""
        return self.tokens.drop(columns=["answer", "step"])


def feature_tables(
    traces: Mapping[str, Trace], group: str | None = None, estimators: Sequence[str] | str = ()
) -> FeatureTables:
    """Read traces row by row, once, into tables of the features that all of them recorded.

    Args:
      group: key of the prompts' meta; prompts with one value form a group. A prompt without the key, and every prompt
        if it is None, is a group with its samples.
      estimators: names of the estimators, or "all", whose metrics are kept for `estimator_scores`.

    Raises:
      StudyError: no trace drew a token, the traces have no feature in common, or no prompt has the key.
    """
    groups: dict[str, int] = {}
    has_key = group is None
    chosen = find_estimators(estimators) if estimators else []
    kept = {"token", *(name for each in chosen for name in each.metrics)}
    answers, tokens, runs, notes = [], [], [], []
    for label, trace in traces.items():
        counts: dict[str, set[LayerCount | None]] = defaultdict(set)
        numbers = itertools.count()
        for run in split_runs(trace).values():
            answered = []
            for whole in run.rows:
                row, number = _without_unfollowed(whole), next(numbers)
                has_key |= group in row.prompt.meta
                if not len(steps := row.drawn_steps):
                    continue
                features = {name: values[steps] for name, values in token_features(row, run.traced_layers).items()}
                key = f"{group} {row.prompt.meta[group]}" if group in row.prompt.meta else row.prompt_key
                group_number = groups.setdefault(key, len(groups))
                identifiers = (label, number, row.prompt.id, group_number, len(steps))
                tokens.append(pd.DataFrame({"answer": len(answers), "step": steps - row.prompt_steps, **features}))
                answers.append(dict(zip(IDENTIFIERS, identifiers, strict=True)) | answer_features(features))
                answered.append(_with_metrics(row, kept))
                for name in feature_names():
                    if name in row.metrics:
                        counts[name].add(layer_count(row, name))
            if answered:
                runs.append(Trace(answered, run.info | {"mode": "generate"}))
        texts = {name: layers_text(of_name, trace.num_layers) for name, of_name in counts.items()}
        notes += _layer_notes(label, texts)
    if not answers:
        raise StudyError(
            f"{', '.join(filter(None, traces)) or 'the trace'}: no drawn token, because there is no prompt, or logits "
            "are not finite; give traces that generate"
        )
    if not has_key:
        raise StudyError(f"no prompt has '{group}' to group by; name a key of the prompts' meta")
    tables = FeatureTables(
        pd.DataFrame(answers, columns=[name for name in answers[0] if all(name in answer for answer in answers)]),
        pd.concat(tokens, join="inner", ignore_index=True),
        tuple(runs),
        tuple(notes),
    )
    if not len(tables.token_features.columns):
        raise StudyError("the traces have no feature in common; record them with the same probes, output among them")
    return tables


def _without_unfollowed(row: Row) -> Row:
    """Return a row whose steps without a log-probability draw no token, such as the last step of given text."""
    if "logprob" not in row.metrics or np.isfinite(row.metrics["logprob"][row.drawn_steps]).all():
        return row
    token = np.where(np.isfinite(row.metrics["logprob"]), row.metrics["token"], -1)
    return replace(row, metrics=row.metrics | {"token": token})


def _with_metrics(row: Row, names: Collection[str]) -> Row:
    return replace(row, metrics={name: values for name, values in row.metrics.items() if name in names})


def _layer_notes(label: str, texts: Mapping[str, str]) -> list[str]:
    """Return a note on each number of layers that features are made of, with the names of these features."""
    by_text: dict[str, list[str]] = defaultdict(list)
    for name, text in texts.items():
        by_text[text].append(name)
    return [layers_note(f"{label}: features of {', '.join(names)}", text) for text, names in by_text.items() if text]


def token_features(row: Row, layers: Iterable[int]) -> dict[str, np.ndarray]:
    """Return the features of every step, name → [steps]; NaN where a step has no value.

    A metric with layers becomes means over heads and over three thirds of the layers that have values of it,
    "lens_kl.early" to "lens_kl.late".

    Args:
      layers: traced layers, from 1.
    """
    layers = list(layers)
    recorded = dict(row.metrics)
    if "logprob" in recorded:
        recorded |= {"surprisal": -recorded["logprob"], "surprise_z": surprise_z(recorded)}
    if "lens_top1" in recorded:
        recorded["prediction_depth"] = row_prediction_depth(row, layers) / layers[-1]
    features = {}
    for name in feature_names():
        if name not in recorded:
            continue
        if name in DERIVED or not METRICS[name].dims:
            features[name] = recorded[name]
            continue
        first = 1 - METRICS[name].first_layer
        values = select_layers(recorded[name][:, first:], present_layers(row, name)[first:])
        values = values.mean(-1) if "head" in METRICS[name].dims else values
        count = values.shape[1]
        for i, depth in enumerate(DEPTHS):
            third = values[:, i * count // 3 : -(-(i + 1) * count // 3)]
            features[f"{name}.{depth}"] = third.mean(1) if count else np.full(row.length, np.nan)
    return features


def answer_features(tokens: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the first, the mean and the largest of each feature [tokens] of an answer's tokens: "entropy.max"."""
    features = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a feature that is NaN at every token stays NaN
        for name, values in tokens.items():
            for aggregate, value in zip(AGGREGATES, (values[0], np.nanmean(values), np.nanmax(values)), strict=True):
                features[f"{name}.{aggregate}"] = float(value)
    return features


def token_feature_names() -> tuple[str, ...]:
    """Return the names of all features that `token_features` computes from some trace."""
    return tuple(
        name
        for feature in feature_names()
        for name in (
            [feature] if feature in DERIVED or not METRICS[feature].dims else [f"{feature}.{depth}" for depth in DEPTHS]
        )
    )


def answer_feature_names() -> tuple[str, ...]:
    """Return the names of all features that `answer_features` computes from some trace."""
    return tuple(f"{name}.{aggregate}" for name in token_feature_names() for aggregate in AGGREGATES)


def probes_of(features: Iterable[str]) -> list[str]:
    """Return the groups of probes that record what some features are made from."""
    return sorted({(METRICS | DERIVED)[name.split(".")[0]].group for name in features})
