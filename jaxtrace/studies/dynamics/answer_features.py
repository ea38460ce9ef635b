"""What features of a generated answer say about whether the model knows the right one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from jaxtrace.errors import StudyError
from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.ranking import auroc
from jaxtrace.studies._shared.result import Table
from jaxtrace.studies.dynamics.classes import early_late
from jaxtrace.studies.dynamics.token_features import FEATURES, Flat

LENGTHS = ("prompt_tokens", "steps")


def answer_features(flat: Flat, share: float, least_steps: int) -> pd.DataFrame:
    """A row per prompt: means of token features, largest and standard deviation of entropy, drifts, lengths.

    Args:
      flat: of the traces.
      share: of the steps at either end, for the drift.
      least_steps: prompts of fewer have no drift (NaN).
    """
    keys = ["model", "prompt", "group"]
    grouped = flat.tokens.groupby(keys, sort=False)
    means = grouped[list(FEATURES)].mean()
    means["entropy_max"], means["entropy_sd"] = grouped["entropy"].max(), grouped["entropy"].std()
    for name in ("entropy", "attention_entropy"):
        means[f"{name}_drift"] = grouped[name].apply(lambda values: _drift(values.to_numpy(), share, least_steps))
    return means.reset_index().merge(flat.prompts[[*keys, *LENGTHS, "text"]], on=keys)


def auroc_table(
    flat: Flat, choices: Mapping[str, pd.DataFrame], *, share: float, least_steps: int, seed: int, resamples: int
) -> tuple[Table, list[str]]:
    """AUROC of each feature of the generated answer for a wrong MC1 choice on the same question.

    Args:
      flat: of the traces.
      choices: by model, a row per question: question, mc1.
      share, least_steps: those of `answer_features`.
      seed, resamples: of the intervals.

    Returns:
      The table, and a note on each model that is not in it: no traced prompt is among the questions that have scores,
      or MC1 is right, or wrong, for all that are.

    Raises:
      StudyError: that is so of all models.
    """
    features = answer_features(flat, share, least_steps)
    features["question"] = features["text"].str.strip()
    names = [name for name in features.columns if name not in ("model", "prompt", "group", "text", "question")]
    rows, reasons, drawn = [], [], {"seed": seed, "resamples": resamples}
    for model, frame in choices.items():
        scored = frame.dropna(subset=["mc1"]).drop_duplicates("question")
        own = features[features["model"] == model].merge(scored, on="question")
        if reason := _no_classes(own):
            reasons.append(f"{model}: {reason}")
        else:
            rows += [{"model": model, **row} for name in names if (row := _row(own, name, drawn))]
    if not rows:
        raise StudyError(f"{'; '.join(reasons)}; trace more of the questions, or leave the choices out")
    table = Table(
        pd.DataFrame(rows),
        "How well a feature of the generated answer tells questions whose MC1 choice is wrong from those where it is "
        "right: AUROC, 0.5 for chance, above it where wrong goes with a higher feature. auroc_given_length: of what a "
        "regression on ln(prompt_tokens) and ln(steps) leaves of it. 95 % intervals over prompts; n prompts, of which "
        "`wrong`.",
    )
    return table, [f"{reason}: it is left out of choices_auroc." for reason in reasons]


def _no_classes(own: pd.DataFrame) -> str | None:
    """Why there is no AUROC of a model's questions; None where there is."""
    if own.empty:
        return "none of the traced prompts is among the questions whose choices have scores"
    if own["mc1"].nunique() == 1:
        verdict = "right" if own["mc1"].iloc[0] else "wrong"
        return f"MC1 is {verdict} for all {len(own)} traced questions, and AUROC needs both classes"
    return None


def _row(own: pd.DataFrame, name: str, drawn: dict[str, int]) -> dict[str, object] | None:
    """None where too few prompts have the feature to tell anything apart."""
    own = own[own[name].notna()]
    if own["mc1"].nunique() < 2:
        return None
    wrong, values, groups = own["mc1"] == 0, own[name].to_numpy(), own["group"]
    row = {"feature": name, **auroc(wrong, values, groups=groups, **drawn).columns("auroc")}
    if name not in LENGTHS:
        left = residualize(values, np.log(own[list(LENGTHS)]))
        row |= auroc(wrong, left, groups=groups, **drawn).columns("auroc_given_length")
    return {**row, "n": len(own), "wrong": int(wrong.sum())}


def _drift(values: np.ndarray, share: float, least_steps: int) -> float:
    if len(values) < least_steps:
        return np.nan
    early, late = early_late(values, share)
    return late - early
