"""Classes of prompts and of models by the three rules, and where the rules disagree."""

from __future__ import annotations

import pandas as pd

from jaxtrace.statistics.intervals import Estimate
from jaxtrace.statistics.trends import mann_kendall, theil_sen
from jaxtrace.studies._shared.prompt_means import prompt_means
from jaxtrace.studies._shared.result import Table
from jaxtrace.studies.dynamics.classes import (
    CLASSES,
    drift_class,
    early_late,
    entropy_slope,
    level_class,
    relative_time,
    robust_class,
)
from jaxtrace.studies.dynamics.token_features import Flat

RULES = ("drift", "level", "robust")


def class_tables(
    flat: Flat, *, share: float, least_steps: int, tau: float, low: float, wide: float, seed: int, resamples: int
) -> dict[str, Table]:
    """Labels of models and of prompts.

    Args:
      flat: of the traces.
      share: of the steps at either end, for the drift.
      least_steps: prompts of fewer have no label.
      tau, low, wide: thresholds of the rules, in nats.
      seed, resamples: of the intervals.
    """
    drawn = {"seed": seed, "resamples": resamples}
    prompts = _prompts(flat, share, least_steps, tau, low, wide, drawn)
    rules = (
        f"drift rule: late − early output entropy against ±{tau:g} nats; level rule: mean below {low:g} nats, else "
        f"standard deviation above {wide:g}; robust rule: the slope of output entropy on t/T, a label only where its "
        f"95 % interval holds neither of ±{tau:g} nats"
    )
    return {
        "classes": Table(
            _models(flat, prompts, tau, low, wide, drawn),
            f"A model's class, by three rules. {rules[0].upper()}{rules[1:]}. The drift and the slope are means over n "
            "prompts with intervals over prompts (one prompt: the slope's from blocks of its steps); level_mean and "
            "level_sd are over all tokens; theil_sen is the mean of the prompts' slopes by Theil and Sen, trending the "
            "share of prompts with a trend by Mann and Kendall's test (p < 0.05).",
        ),
        "class_counts": Table(_counts(prompts), "How many prompts of a model each rule puts in each class."),
        "class_disagreement": Table(
            _disagreement(prompts), "Prompts by what the three rules say of them; share is of the model's prompts."
        ),
        "class_prompts": Table(prompts, f"Every prompt of {least_steps} steps or more. {rules[0].upper()}{rules[1:]}."),
    }


def _prompts(
    flat: Flat, share: float, least_steps: int, tau: float, low: float, wide: float, drawn: dict[str, int]
) -> pd.DataFrame:
    rows = []
    tokens = flat.tokens.groupby(["model", "prompt"])
    for one in flat.prompts.itertuples():
        own = tokens.get_group((one.model, one.prompt))
        entropy = own["entropy"].to_numpy()
        if len(entropy) < least_steps:
            continue
        early, late = early_late(entropy, share)
        mean, sd = float(entropy.mean()), float(entropy.std(ddof=1))
        slope, median_slope = entropy_slope(entropy, **drawn), theil_sen(entropy, relative_time(len(entropy)))
        labels = (drift_class(late - early, tau), level_class(mean, sd, low, wide), robust_class(slope, tau))
        rows.append(
            {
                "model": one.model,
                "prompt": one.name,
                "group": one.group,
                "steps": len(entropy),
                "drift": late - early,
                "level_mean": mean,
                "level_sd": sd,
                **slope.columns("slope"),
                **median_slope.columns("theil_sen"),
                "mann_kendall_p": mann_kendall(entropy),
                **{f"{rule}_class": label for rule, label in zip(RULES, labels, strict=True)},
                "agree": len(set(labels)) == 1,
            }
        )
    return pd.DataFrame(rows)


def _models(
    flat: Flat, prompts: pd.DataFrame, tau: float, low: float, wide: float, drawn: dict[str, int]
) -> pd.DataFrame:
    rows = []
    for model, own in prompts.groupby("model", sort=False):
        tokens = flat.of(str(model)).tokens["entropy"]
        drift, slope = prompt_means(own[["drift", "slope"]], own["group"], **drawn).values()
        if len(own) == 1:
            low_end, high_end = own["slope_low"].iloc[0], own["slope_high"].iloc[0]
            slope = Estimate(slope.value, low_end, high_end, 1)
        labels = (
            drift_class(drift.value, tau),
            level_class(tokens.mean(), tokens.std(), low, wide),
            robust_class(slope, tau),
        )
        rows.append(
            {
                "model": model,
                **{f"{rule}_class": label for rule, label in zip(RULES, labels, strict=True)},
                "agree": len(set(labels)) == 1,
                **drift.columns("drift"),
                "level_mean": tokens.mean(),
                "level_sd": tokens.std(),
                **slope.columns("slope"),
                "theil_sen": own["theil_sen"].mean(),
                "trending": (own["mann_kendall_p"] < 0.05).mean(),
                "n": drift.n,
            }
        )
    return pd.DataFrame(rows)


def _counts(prompts: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for model, own in prompts.groupby("model", sort=False):
        for rule in RULES:
            counts = own[f"{rule}_class"].value_counts()
            rows.append({"model": model, "rule": rule, **{name: int(counts.get(name, 0)) for name in CLASSES}})
    return pd.DataFrame(rows)


def _disagreement(prompts: pd.DataFrame) -> pd.DataFrame:
    keys = ["model", *(f"{rule}_class" for rule in RULES)]
    counted = prompts.groupby(keys, sort=False).size().rename("prompts").reset_index()
    totals = counted.groupby("model")["prompts"].transform("sum")
    return counted.assign(share=counted["prompts"] / totals).sort_values(
        ["model", "prompts"], ascending=[True, False], ignore_index=True
    )
