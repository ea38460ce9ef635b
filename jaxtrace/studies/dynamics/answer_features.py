"""Features of generated answers as signs of whether the model knows the right one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from jaxtrace.errors import StudyError
from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.differences import permutation_p
from jaxtrace.statistics.intervals import Draws, Estimate
from jaxtrace.statistics.ranking import auroc
from jaxtrace.studies._shared.adjustment import adjusted_table
from jaxtrace.studies._shared.result import Table
from jaxtrace.studies.dynamics.classes import early_late
from jaxtrace.studies.dynamics.settings import DynamicsConfig
from jaxtrace.studies.dynamics.token_tables import FEATURES, TokenTables

NONE_TRACED = "none of the traced prompts is among the questions whose choices have scores"
LENGTHS = ("prompt_tokens", "steps")
AUROC_TEXT = (
    "AUROC of a feature of the generated answer for a wrong MC1 choice on the same question: 0.5 is chance, and a "
    "value above it means that wrong choices go with a higher feature. auroc_given_length uses the residuals of a "
    "regression on ln(prompt_tokens) and ln(steps). 95 % intervals over n prompts, of which `wrong`; the smaller class "
    "decides whether they are few. p and p_given_length are of permutation tests of the ranks, over prompts."
)


def answer_features(flat: TokenTables, config: DynamicsConfig) -> pd.DataFrame:
    """Return a row per prompt: means of token features, largest and standard deviation of entropy, drifts, lengths.

    Prompts of fewer than `config.least_steps` steps have drifts of NaN.
    """

    def drift(values: pd.Series) -> float:
        if len(values) < config.least_steps:
            return np.nan
        early, late = early_late(values.to_numpy(), config.share)
        return late - early

    keys = ["model", "prompt", "group"]
    grouped = flat.tokens.groupby(keys, sort=False)
    means = grouped[list(FEATURES)].mean()
    means["entropy_max"], means["entropy_sd"] = grouped["entropy"].max(), grouped["entropy"].std()
    for name in ("entropy", "attention_entropy"):
        means[f"{name}_drift"] = grouped[name].apply(drift)
    return means.reset_index().merge(flat.prompts[[*keys, *LENGTHS, "text"]], on=keys)


def auroc_table(
    flat: TokenTables, choices: Mapping[str, pd.DataFrame], config: DynamicsConfig
) -> tuple[Table, list[str]]:
    """Compute the AUROC of each feature of the generated answer for a wrong MC1 choice on the same question.

    Args:
      choices: MC scores by model, one row per question: question, mc1.

    Returns:
      The table, and a note on each model that is absent from it: no traced prompt is among the scored questions, or
      MC1 is right for all of them, or wrong for all.

    Raises:
      StudyError: every model is absent.
    """
    features = answer_features(flat, config)
    features["question"] = features["text"].str.strip()
    names = [name for name in features.columns if name not in ("model", "prompt", "group", "text", "question")]
    rows, reasons = [], []
    for model, frame in choices.items():
        scored = frame.dropna(subset=["mc1"]).drop_duplicates("question")
        answers = features[features["model"] == model].merge(scored, on="question")
        if reason := _reason_without_auroc(answers):
            reasons.append(f"{model}: {reason}")
        else:
            rows += [{"model": model, **row} for name in names if (row := _row(answers, name, config.resampling))]
    if not rows:
        raise StudyError(f"{'; '.join(reasons)}; trace more of the questions, or drop --choices")
    return adjusted_table(pd.DataFrame(rows), AUROC_TEXT, "model"), [
        f"{reason}: it is absent from choices_auroc." for reason in reasons
    ]


def _reason_without_auroc(answers: pd.DataFrame) -> str | None:
    """Return the reason why a model's answers have no AUROC, or None if they have one."""
    if answers.empty:
        return NONE_TRACED
    if answers["mc1"].nunique() == 1:
        verdict = "right" if answers["mc1"].iloc[0] else "wrong"
        return f"MC1 is {verdict} for all {len(answers)} traced questions, and AUROC needs both classes"
    return None


def _row(answers: pd.DataFrame, name: str, settings: Draws) -> dict[str, object] | None:
    """Return the AUROC of a feature, or None if the prompts with the feature are of one class."""
    answers = answers[answers[name].notna()]
    if answers["mc1"].nunique() < 2:
        return None
    wrong, values, groups = answers["mc1"] == 0, answers[name].to_numpy(), answers["group"]

    def tested(of_feature: np.ndarray) -> tuple[Estimate, float]:
        p = permutation_p(rankdata(of_feature), wrong, groups=groups, **settings)
        return auroc(wrong, of_feature, groups=groups, **settings), p

    area, p = tested(values)
    row = {"feature": name, **area.columns("auroc"), "p": p}
    if name not in LENGTHS:
        area, p = tested(residualize(values, np.log(answers[list(LENGTHS)])))
        row |= {**area.columns("auroc_given_length"), "p_given_length": p}
    return {**row, "n": len(answers), "wrong": int(wrong.sum())}
