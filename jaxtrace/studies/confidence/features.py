"""What a confidence is made from: numbers per drawn token, and per answer, of whatever a trace recorded."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jaxtrace.errors import StudyError
from jaxtrace.schema import METRICS, QUANTITIES
from jaxtrace.studies._shared.labels import prompt_of
from jaxtrace.studies.confidence.baselines import baselines, sample_baselines, surprise_z
from jaxtrace.traces.depth import prediction_depth
from jaxtrace.traces.trace import Row, Trace

OUTPUT = ("entropy", "varentropy", "top1_prob", "top1_top2_gap")
# Without attention_entropy itself, which grows with ln(keys) and so tells the length.
LAYERED = (
    *("attention_entropy_normalized", "sink_mass", "hdi", "head_jsd"),
    *("lens_entropy", "lens_varentropy", "lens_kl", "lens_top1_prob"),
    *("hidden_norm", "hidden_delta_layer", "hidden_delta_step", "hidden_cosine_layer"),
)
MADE_OF = {"surprisal": ("logprob",), "surprise_z": ("logprob", "entropy"), "prediction_depth": ("lens_top1",)}
DEPTHS = ("early", "middle", "late")
OVER_TOKENS = ("first", "mean", "max")
ABOUT = ["trace", "row", "prompt", "group", "length"]


@dataclass(frozen=True)
class Frames:
    """The answers of some traces as tables.

    Attributes:
      answers: a row per answer that drew a token: ABOUT (label of the trace, number of the row in it, id of the
        prompt, number of the group that it is held out with, drawn tokens), then its features.
      tokens: a row per drawn token: `answer`, the number of its answer in `answers`, `step`, then its features.
      scores: per answer, uncertainties of `baselines`; those that any answer lacks are left out.
    """

    answers: pd.DataFrame
    tokens: pd.DataFrame
    scores: pd.DataFrame

    @property
    def answer_features(self) -> pd.DataFrame:
        """[answers, features]."""
        return self.answers.drop(columns=ABOUT)

    @property
    def token_features(self) -> pd.DataFrame:
        """[tokens, features]."""
        return self.tokens.drop(columns=["answer", "step"])


def frames(traces: Mapping[str, Trace], group: str | None = None) -> Frames:
    """Reads traces row by row. Features are those that all of them recorded.

    Args:
      traces: by label.
      group: key of the prompts' meta; answers to prompts of one value are one group. Those to a prompt without it, or
        all where it is None, are groups by themselves, samples of a prompt together.

    Raises:
      StudyError: no trace drew a token, they have no feature in common, or no prompt has the key.
    """
    groups: dict[str, int] = {}
    named = group is None
    answers, tokens, scores = [], [], []
    for label, trace in traces.items():
        sampled: dict[str, list[tuple[int, str]]] = {}
        for number, row in enumerate(trace.rows):
            named |= group in row.prompt.meta
            steps = drawn(row)
            if not len(steps):
                continue
            of_tokens = {name: values[steps] for name, values in token_features(row, trace.traced_layers).items()}
            held_with = groups.setdefault(_group(row, group), len(groups))
            about = (label, number, row.prompt.id, held_with, len(steps))
            tokens.append(pd.DataFrame({"answer": len(answers), "step": steps - row.prompt_steps, **of_tokens}))
            sampled.setdefault(prompt_of(row), []).append((len(answers), row.text))
            answers.append(dict(zip(ABOUT, about, strict=True)) | answer_features(of_tokens))
            scores.append(baselines({name: values[steps] for name, values in row.metrics.items()}))
        for samples in sampled.values():
            if "msp" in scores[-1]:
                of_samples = sample_baselines([(text, -scores[i]["msp"]) for i, text in samples])
                for i, _ in samples:
                    scores[i].update(of_samples)
    if not answers:
        raise StudyError("the traces have no drawn token; give traces that generate")
    if not named:
        raise StudyError(f"no prompt has '{group}' to group by; name a key of the prompts' meta")
    made = Frames(_common(map(pd.Series, answers)), _common(tokens), pd.DataFrame(scores).dropna(axis=1))
    if not len(made.token_features.columns):
        raise StudyError("the traces have no feature in common; record them with the same probes, output among them")
    return made


def _group(row: Row, key: str | None) -> str:
    return f"{key} {row.prompt.meta[key]}" if key in row.prompt.meta else prompt_of(row)


def drawn(row: Row) -> np.ndarray:
    """The steps [tokens] of a row that drew a token (or, of given text, that were followed by one)."""
    has = row.metrics["token"] >= 0
    has[: row.prompt_steps] = False
    return (
        np.flatnonzero(has & np.isfinite(row.metrics["logprob"])) if "logprob" in row.metrics else np.flatnonzero(has)
    )


def token_features(row: Row, layers: Iterable[int]) -> dict[str, np.ndarray]:
    """Features of every step, name → [steps]; NaN where a step has no value.

    Of metrics with layers, means over heads and over three depths, "lens_kl.early" to "lens_kl.late".

    Args:
      row: a trace.
      layers: those that were traced, from 1.
    """
    found = {name: row.metrics[name] for name in OUTPUT if name in row.metrics}
    if "logprob" in row.metrics:
        found["surprisal"] = -row.metrics["logprob"]
        found["surprise_z"] = surprise_z(row.metrics)
    for name in LAYERED:
        if name not in row.metrics:
            continue
        values = row.metrics[name][:, 1 - METRICS[name].first_layer :]
        values = values.reshape(*values.shape[:2], -1).mean(-1)
        count = values.shape[1]
        for i, depth in enumerate(DEPTHS):
            found[f"{name}.{depth}"] = values[:, i * count // 3 : -(-(i + 1) * count // 3)].mean(1)
    if "lens_top1" in row.metrics:
        layers = list(layers)
        found["prediction_depth"] = prediction_depth(row.metrics["lens_top1"], layers) / layers[-1]
    return found


def answer_features(tokens: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of features [tokens] of an answer's tokens, the first, the mean and the largest: "entropy.max"."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN is NaN
        for name, values in tokens.items():
            for over, value in zip(OVER_TOKENS, (values[0], np.nanmean(values), np.nanmax(values)), strict=True):
                found[f"{name}.{over}"] = float(value)
    return found


def probes_of(features: Iterable[str]) -> list[str]:
    """The groups of probes that some features are made of."""
    metrics = {metric for name in features for metric in MADE_OF.get(name.split(".")[0], (name.split(".")[0],))}
    return sorted({QUANTITIES[metric].group for metric in metrics})


def _common(rows: Iterable[pd.DataFrame | pd.Series]) -> pd.DataFrame:
    """Rows below each other, with the columns that all of them have."""
    parts = [row.to_frame().T if isinstance(row, pd.Series) else row for row in rows]
    return pd.concat(parts, join="inner", ignore_index=True).infer_objects()
