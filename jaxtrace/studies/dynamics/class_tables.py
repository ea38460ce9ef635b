"""Tables of the classes of prompts and of models by the three rules, and of the rules' disagreements."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from jaxtrace.statistics.intervals import Estimate, prompt_means
from jaxtrace.statistics.trends import mann_kendall, theil_sen
from jaxtrace.studies._shared.adjustment import adjusted_table
from jaxtrace.studies._shared.result import EXAMPLES, Table
from jaxtrace.studies.dynamics import classes
from jaxtrace.studies.dynamics.settings import DynamicsConfig
from jaxtrace.studies.dynamics.token_tables import TokenTables

RULES = ("drift", "level", "robust")
RULES_TEXT = (
    "Drift rule: late − early output entropy against {tau}; level rule: mean below {low:g} nats, else standard "
    "deviation above {wide:g}; robust rule: the slope of output entropy on t/T, decided only if its 95 % interval "
    "holds neither of {tau}"
)
TREND_TEXT = (
    "mann_kendall_p, and the interval of theil_sen, use a variance corrected for the autocorrelation of the steps (Yue "
    "and Wang 2004)."
)


def class_tables(flat: TokenTables, config: DynamicsConfig) -> dict[str, Table]:
    """Return the classes of models and of prompts with at least `config.least_steps` steps."""
    rules = RULES_TEXT.format(tau=f"±{config.tau:g} nats", low=config.low, wide=config.wide)
    text = f"Every prompt of {config.least_steps} steps or more. {rules}. {TREND_TEXT}"
    prompt_table = adjusted_table(_prompt_rows(flat, config), text, "model")
    prompts = prompt_table.frame
    return {
        "classes": Table(
            _model_rows(flat, prompts, config),
            f"A model's class, by three rules. {rules}. Drift and slope are means over n prompts with intervals over "
            "prompts (one prompt: the slope's from blocks of its steps); level_mean and level_sd are over all tokens; "
            "theil_sen is the mean of the prompts' Theil–Sen slopes, trending the share of prompts with a trend: "
            "mann_kendall_p_adjusted < 0.05 in class_prompts.",
        ),
        "class_counts": Table(_counts(prompts), "Number of prompts of a model in each class, by rule."),
        "class_disagreement": Table(
            _disagreement(prompts), "Number of prompts by the three rules' classes; share is of the model's prompts."
        ),
        "class_prompts": replace(prompt_table, preview=EXAMPLES),
    }


def _classes(drift: float, mean: float, spread: float, slope: Estimate, config: DynamicsConfig) -> dict[str, object]:
    labels = {
        "drift_class": classes.drift_class(drift, config.tau),
        "level_class": classes.level_class(mean, spread, config.low, config.wide),
        "robust_class": classes.robust_class(slope, config.tau),
    }
    return {**labels, "agree": len({*labels.values()}) == 1}


def _prompt_rows(flat: TokenTables, config: DynamicsConfig) -> pd.DataFrame:
    rows = []
    tokens = flat.tokens.groupby(["model", "prompt"])
    for prompt in flat.prompts[flat.prompts["steps"] >= config.least_steps].itertuples():
        entropy = tokens.get_group((prompt.model, prompt.prompt))["entropy"].to_numpy()
        early, late = classes.early_late(entropy, config.share)
        mean, spread = float(entropy.mean()), float(entropy.std(ddof=1))
        slope = classes.entropy_slope(entropy, **config.resampling)
        rows.append(
            {
                "model": prompt.model,
                "prompt": prompt.name,
                "group": prompt.group,
                "steps": len(entropy),
                "drift": late - early,
                "level_mean": mean,
                "level_sd": spread,
                **slope.columns("slope"),
                **theil_sen(entropy, classes.relative_time(len(entropy))).columns("theil_sen"),
                "mann_kendall_p": mann_kendall(entropy),
                **_classes(late - early, mean, spread, slope, config),
            }
        )
    return pd.DataFrame(rows)


def _model_rows(flat: TokenTables, prompts: pd.DataFrame, config: DynamicsConfig) -> pd.DataFrame:
    rows = []
    for model, of_model in prompts.groupby("model", sort=False):
        entropy = flat.of_model(str(model)).tokens["entropy"]
        drift, slope = prompt_means(of_model[["drift", "slope"]], of_model["group"], **config.resampling).values()
        if len(of_model) == 1:
            slope = Estimate(slope.value, of_model["slope_low"].iloc[0], of_model["slope_high"].iloc[0], 1)
        rows.append(
            {
                "model": model,
                **_classes(drift.value, entropy.mean(), entropy.std(), slope, config),
                **drift.columns("drift"),
                "level_mean": entropy.mean(),
                "level_sd": entropy.std(),
                **slope.columns("slope"),
                "theil_sen": of_model["theil_sen"].mean(),
                "trending": (of_model["mann_kendall_p_adjusted"] < 0.05).mean(),
                "n": drift.n,
            }
        )
    return pd.DataFrame(rows)


def _counts(prompts: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for model, of_model in prompts.groupby("model", sort=False):
        for rule in RULES:
            counts = of_model[f"{rule}_class"].value_counts().reindex(classes.CLASSES, fill_value=0)
            rows.append({"model": model, "rule": rule, **counts})
    return pd.DataFrame(rows)


def _disagreement(prompts: pd.DataFrame) -> pd.DataFrame:
    keys = ["model", *(f"{rule}_class" for rule in RULES)]
    counts = prompts.groupby(keys, sort=False).size().rename("prompts").reset_index()
    totals = counts.groupby("model")["prompts"].transform("sum")
    return counts.assign(share=counts["prompts"] / totals).sort_values(
        ["model", "prompts"], ascending=[True, False], ignore_index=True
    )
