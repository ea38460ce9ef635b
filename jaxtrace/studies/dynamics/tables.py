"""The seven tables of arXiv 2604.03589, from flat tables of tokens and layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from jaxtrace.statistics.controls import residualize
from jaxtrace.studies._shared.prompt_means import prompt_means
from jaxtrace.studies._shared.result import Table
from jaxtrace.studies.dynamics.classes import early_late
from jaxtrace.studies.dynamics.settings import HDIKind
from jaxtrace.studies.dynamics.token_features import FEATURES, Flat

GENERATION = ("entropy", "top1_prob", "top1_top2_gap", "attention_entropy", "hdi")
EARLY_LATE = ("entropy", "attention_entropy", "attention_entropy_normalized", "attention_entropy_no_sink")
RESIDUAL = "attention_entropy_given_ln_keys"
EXTREME = 5  # layers at either end
HDI_UNITS: dict[HDIKind, str] = {
    "std": "in nats",
    "var": "in nats²",
    "cv": "without a unit",
    "fano": "in nats",
    "range": "in nats",
    "jsd": "in nats",
}


def paper_tables(flat: Flat, *, hdi: HDIKind, seed: int, resamples: int) -> dict[str, Table]:
    """Tables 1 to 4, 6 and 7 of the paper, and `means`; for Table 5 see `early_late_tables`.

    Args:
      flat: of the traces.
      hdi: the kind of dispersion that it was made with.
      seed, resamples: of the intervals.
    """
    drawn = {"seed": seed, "resamples": resamples}
    percentiles = "10th and 90th percentile, least and largest of the tokens, in nats."
    return {
        "table1_generation": Table(
            _by_model(flat, _generation),
            "Generated tokens: mean and standard deviation (_sd) over tokens; entropies in nats, hdi "
            f"({hdi}) {HDI_UNITS[hdi]}; kv_mib_max is the largest cache.",
        ),
        "table2_output_entropy": Table(_percentiles(flat, "entropy"), f"Output entropy: {percentiles}"),
        "table3_attention_entropy": Table(
            _percentiles(flat, "attention_entropy"), f"Attention entropy, mean over layers: {percentiles}"
        ),
        "table4_layers": Table(
            _by_model(flat, _profile),
            "Attention entropy (nats) of layers, 1 the first: mean and standard deviation across layers, and the "
            "layers of the least and the largest.",
        ),
        "table6_layer_extremes": Table(
            _by_model(flat, lambda one: _extremes(one, drawn)),
            f"The {EXTREME} layers of least and of largest attention entropy, with their head dispersion: means over "
            "prompts, with 95 % intervals over prompts (n).",
        ),
        "table7_hidden": Table(
            _by_model(flat, _hidden),
            "Residual stream before the final norm, mean over layers: hidden_norm is ‖x_l‖₂, hidden_delta_layer "
            "‖x_l − x_(l−1)‖₂, hidden_delta_step ‖x_l(t) − x_l(t−1)‖₂; standard deviations (_sd) over tokens.",
        ),
        "means": Table(
            _by_model(flat, lambda one: _means(one, drawn)),
            "Mean over prompts of each prompt's mean, with its 95 % interval over prompts (n); beside it the mean and "
            "the standard deviation over tokens, which the paper gives.",
        ),
    }


def early_late_tables(flat: Flat, *, share: float, least_steps: int, seed: int, resamples: int) -> dict[str, Table]:
    """Table 5, and beside it attention entropy with its growth with the number of keys taken out.

    Args:
      flat: of the traces.
      share: of the steps at either end.
      least_steps: prompts of fewer are left out.
      seed, resamples: of the intervals.
    """
    long = flat.prompts.loc[flat.prompts["steps"] >= least_steps, ["model", "prompt"]]
    tokens = flat.tokens.merge(long, on=["model", "prompt"]).copy()
    for _, own in tokens.groupby("model"):
        tokens.loc[own.index, RESIDUAL] = residualize(own["attention_entropy"], np.log(own["keys"]))
    ends = _ends(tokens, share)
    rows = []
    for (model, metric), own in ends.groupby(["model", "metric"], sort=False):
        row: dict[str, object] = {"model": model, "metric": metric}
        estimates = prompt_means(own[["early", "late", "drift"]], own["group"], seed=seed, resamples=resamples)
        for name, estimate in estimates.items():
            row |= estimate.columns(name)
        rows.append({**row, "n": own["group"].nunique(), "left_out": _left_out(flat, str(model), least_steps)})
    frame = pd.DataFrame(rows)
    ends_are = f"means over the first and the last {share:.0%} of a prompt's steps, drift = late − early"
    return {
        "table5_early_late": Table(
            frame[frame["metric"].isin(EARLY_LATE[:2])],
            f"In nats: {ends_are}; means over n prompts with 95 % intervals. left_out: prompts of fewer than "
            f"{least_steps} steps.",
        ),
        "length_control": Table(
            frame[frame["metric"].isin((*EARLY_LATE[1:], RESIDUAL))],
            "Attention entropy grows with ln(keys) as a text grows. Beside it: divided by ln(visible keys); without "
            f"the first position (nats); what a regression on ln(keys) over all tokens leaves (nats). {ends_are}.",
        ),
    }


def _ends(tokens: pd.DataFrame, share: float) -> pd.DataFrame:
    rows = []
    for (model, prompt, group), own in tokens.groupby(["model", "prompt", "group"], sort=False):
        for metric in (*EARLY_LATE, RESIDUAL):
            early, late = early_late(own[metric].to_numpy(), share)
            rows.append((model, prompt, group, metric, early, late, late - early))
    return pd.DataFrame(rows, columns=["model", "prompt", "group", "metric", "early", "late", "drift"])


def _left_out(flat: Flat, model: str, least_steps: int) -> int:
    return int((flat.of(model).prompts["steps"] < least_steps).sum())


def _by_model(flat: Flat, rows: Callable[[Flat], list[dict[str, object]]]) -> pd.DataFrame:
    return pd.DataFrame([{"model": model, **row} for model in flat.models for row in rows(flat.of(model))])


def _mean_sd(frame: pd.DataFrame, names: tuple[str, ...]) -> dict[str, object]:
    """Mean and sample standard deviation of columns."""
    return {key: value for name in names for key, value in _two(name, frame[name]).items()}


def _two(name: str, values: pd.Series) -> dict[str, float]:
    return {name: values.mean(), f"{name}_sd": values.std()}


def _generation(one: Flat) -> list[dict[str, object]]:
    counts = {
        "prompts": len(one.prompts),
        "prompt_tokens": one.prompts["prompt_tokens"].mean(),
        "generated_tokens": one.prompts["steps"].mean(),
    }
    return [{**counts, **_mean_sd(one.tokens, GENERATION), "kv_mib_max": one.tokens["kv_mib"].max()}]


def _percentiles(flat: Flat, name: str) -> pd.DataFrame:
    def row(one: Flat) -> list[dict[str, object]]:
        low, high = one.tokens[name].quantile([0.1, 0.9])
        return [{"p10": low, "p90": high, "min": one.tokens[name].min(), "max": one.tokens[name].max()}]

    return _by_model(flat, row)


def _profile(one: Flat) -> list[dict[str, object]]:
    profile = one.layers.groupby("layer")[["attention_entropy", "hdi"]].mean().dropna()
    entropy = profile["attention_entropy"]
    of_layers = {"layers": len(profile), **_two("attention_entropy", entropy)}
    lowest = {"lowest_layer": entropy.idxmin(), "lowest": entropy.min()}
    highest = {"highest_layer": entropy.idxmax(), "highest": entropy.max()}
    return [{**of_layers, **lowest, **highest, "hdi": profile["hdi"].mean()}]


def _extremes(one: Flat, drawn: dict[str, int]) -> list[dict[str, object]]:
    order = one.layers.groupby("layer")["attention_entropy"].mean().dropna().sort_values()
    rows = []
    for end, layers in (("lowest", order.index[:EXTREME]), ("highest", order.index[::-1][:EXTREME])):
        for layer in layers:
            own = one.layers[one.layers["layer"] == layer]
            found = prompt_means(own[["attention_entropy", "hdi"]], own["group"], **drawn)
            estimates = {key: x for name, estimate in found.items() for key, x in estimate.columns(name).items()}
            rows.append({"end": end, "layer": layer, **estimates, "n": found["attention_entropy"].n})
    return rows


def _hidden(one: Flat) -> list[dict[str, object]]:
    return [_mean_sd(one.tokens, ("hidden_norm", "hidden_delta_layer", "hidden_delta_step"))]


def _means(one: Flat, drawn: dict[str, int]) -> list[dict[str, object]]:
    means = one.tokens.groupby(["prompt", "group"], as_index=False)[list(FEATURES)].mean()
    rows = []
    for name, estimate in prompt_means(means[list(FEATURES)], means["group"], **drawn).items():
        of_tokens = {"token_mean": one.tokens[name].mean(), "token_sd": one.tokens[name].std()}
        tokens = int(one.tokens[name].notna().sum())
        rows.append({"metric": name, **estimate.columns("mean"), "n": estimate.n, **of_tokens, "tokens": tokens})
    return rows
