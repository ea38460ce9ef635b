"""The seven tables of arXiv 2604.03589, from flat tables of tokens and layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.intervals import UNBOUNDED, estimate_columns, prompt_means
from jaxtrace.studies._shared.result import Table
from jaxtrace.studies.dynamics.classes import early_late
from jaxtrace.studies.dynamics.quantities import HDI_UNITS
from jaxtrace.studies.dynamics.settings import DynamicsConfig
from jaxtrace.studies.dynamics.token_tables import FEATURES, HIDDEN, TokenTables

GENERATION = ("entropy", "top1_prob", "top1_top2_gap", "attention_entropy", "hdi")
EARLY_LATE = ("entropy", "attention_entropy", "attention_entropy_normalized", "attention_entropy_no_sink")
RESIDUAL = "attention_entropy_given_ln_keys"
POSITIVE = (0.0, np.inf)  # bounds of entropies, probabilities and norms
EXTREME_LAYERS = 5  # layers at either end
Rows = list[dict[str, object]]


def paper_tables(flat: TokenTables, config: DynamicsConfig) -> dict[str, Table]:
    """Return tables 1 to 4, 6 and 7 of the paper, and `means`; `early_late_tables` returns table 5."""
    percentiles = "10th and 90th percentile, smallest and largest value of the tokens, in nats."
    return {
        "table1_generation": Table(
            _by_model(flat, _generation),
            "Generated tokens: mean and standard deviation (_sd) over tokens; entropies in nats, hdi "
            f"({config.hdi}) {HDI_UNITS[config.hdi]}; kv_mib_max is the largest cache.",
        ),
        "table2_output_entropy": Table(_percentiles(flat, "entropy"), f"Output entropy: {percentiles}"),
        "table3_attention_entropy": Table(
            _percentiles(flat, "attention_entropy"), f"Attention entropy, mean over layers: {percentiles}"
        ),
        "table4_layers": Table(
            _by_model(flat, _profile),
            "Attention entropy (nats) of layers, 1 the first: mean and standard deviation across layers, and the "
            "layers with the smallest and the largest.",
        ),
        "table6_layer_extremes": Table(
            _by_model(flat, lambda model: _extremes(model, config)),
            f"The {EXTREME_LAYERS} layers of smallest and of largest attention entropy, with their head dispersion: "
            "means over prompts, with 95 % intervals over prompts (n).",
        ),
        "table7_hidden": Table(
            _by_model(flat, lambda model: [_means_and_sds(model.tokens, HIDDEN)]),
            "Residual stream before the final norm, mean over layers: hidden_norm is ‖x_l‖₂, hidden_delta_layer "
            "‖x_l − x_(l−1)‖₂, hidden_delta_step ‖x_l(t) − x_l(t−1)‖₂; standard deviations (_sd) over tokens.",
        ),
        "means": Table(
            _by_model(flat, lambda model: _prompt_mean_rows(model, config)),
            "Mean over prompts of each prompt's mean, with its 95 % interval over prompts (n), and the mean and "
            "standard deviation over tokens, which the paper gives.",
        ),
    }


def early_late_tables(flat: TokenTables, config: DynamicsConfig) -> dict[str, Table]:
    """Return table 5, and attention entropy controlled for its growth with the number of keys.

    Prompts of fewer than `config.least_steps` steps are excluded.
    """
    long_enough = flat.prompts.loc[flat.prompts["steps"] >= config.least_steps, ["model", "prompt"]]
    tokens = flat.tokens.merge(long_enough, on=["model", "prompt"]).copy()
    for _, of_model in tokens.groupby("model"):
        tokens.loc[of_model.index, RESIDUAL] = residualize(of_model["attention_entropy"], np.log(of_model["keys"]))
    rows = []
    for (model, metric), ends in _ends(tokens, config.share).groupby(["model", "metric"], sort=False):
        bounds = UNBOUNDED if metric == RESIDUAL else POSITIVE
        means = prompt_means(ends[["early", "late"]], ends["group"], bounds=bounds, **config.resampling)
        means |= prompt_means(ends[["drift"]], ends["group"], **config.resampling)
        short = int((flat.of_model(str(model)).prompts["steps"] < config.least_steps).sum())
        counts = {"n": ends["group"].nunique(), "left_out": short}
        rows.append({"model": model, "metric": metric, **estimate_columns(means), **counts})
    frame = pd.DataFrame(rows)
    ends_text = f"means over the first and the last {config.share:.0%} of a prompt's steps, drift = late − early"
    return {
        "table5_early_late": Table(
            frame[frame["metric"].isin(EARLY_LATE[:2])],
            f"In nats: {ends_text}; means over n prompts with 95 % intervals. left_out: number of excluded prompts, "
            f"with fewer than {config.least_steps} steps.",
        ),
        "length_control": Table(
            _in_order(frame, (RESIDUAL, *EARLY_LATE[1:])),
            "Attention entropy grows with ln(keys) as a text grows. The control to read first is its residual from a "
            "regression on ln(keys) over all tokens (nats). Divided by ln(visible keys) it still depends on length, "
            f"and may rise or fall with it; without position 0 it is in nats. {ends_text}.",
        ),
    }


def _in_order(frame: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the rows of some metrics, model by model, in the order of the metrics."""
    models = list(frame["model"].unique())
    keys = frame[["model", "metric"]].apply(tuple, axis=1)
    place = keys.map({key: i for i, key in enumerate((model, metric) for model in models for metric in metrics)})
    return frame.loc[place.dropna().sort_values().index].reset_index(drop=True)


def _ends(tokens: pd.DataFrame, share: float) -> pd.DataFrame:
    rows = []
    for (model, prompt, group), of_prompt in tokens.groupby(["model", "prompt", "group"], sort=False):
        for metric in (*EARLY_LATE, RESIDUAL):
            early, late = early_late(of_prompt[metric].to_numpy(), share)
            rows.append((model, prompt, group, metric, early, late, late - early))
    return pd.DataFrame(rows, columns=["model", "prompt", "group", "metric", "early", "late", "drift"])


def _by_model(flat: TokenTables, rows: Callable[[TokenTables], Rows]) -> pd.DataFrame:
    return pd.DataFrame([{"model": model, **row} for model in flat.models for row in rows(flat.of_model(model))])


def _means_and_sds(frame: pd.DataFrame, names: Sequence[str]) -> dict[str, object]:
    """Return mean and sample standard deviation of columns."""
    return {key: x for name in names for key, x in ((name, frame[name].mean()), (f"{name}_sd", frame[name].std()))}


def _generation(model: TokenTables) -> Rows:
    counts = {
        "prompts": len(model.prompts),
        "prompt_tokens": model.prompts["prompt_tokens"].mean(),
        "generated_tokens": model.prompts["steps"].mean(),
    }
    return [{**counts, **_means_and_sds(model.tokens, GENERATION), "kv_mib_max": model.tokens["kv_mib"].max()}]


def _percentiles(flat: TokenTables, name: str) -> pd.DataFrame:
    def row(model: TokenTables) -> Rows:
        values = model.tokens[name]
        low, high = values.quantile([0.1, 0.9])
        return [{"p10": low, "p90": high, "min": values.min(), "max": values.max()}]

    return _by_model(flat, row)


def _profile(model: TokenTables) -> Rows:
    profile = model.layers.groupby("layer")[["attention_entropy", "hdi"]].mean().dropna()
    if not len(profile):
        return [{"layers": 0}]
    entropy = profile["attention_entropy"]
    level = {"layers": len(profile), **_means_and_sds(profile, ["attention_entropy"])}
    lowest = {"lowest_layer": entropy.idxmin(), "lowest": entropy.min()}
    highest = {"highest_layer": entropy.idxmax(), "highest": entropy.max()}
    return [{**level, **lowest, **highest, "hdi": profile["hdi"].mean()}]


def _extremes(model: TokenTables, config: DynamicsConfig) -> Rows:
    order = model.layers.groupby("layer")["attention_entropy"].mean().dropna().sort_values()
    rows: Rows = []
    for end, layers in (("lowest", order.index[:EXTREME_LAYERS]), ("highest", order.index[::-1][:EXTREME_LAYERS])):
        for layer in layers:
            of_layer = model.layers[model.layers["layer"] == layer]
            values, resampling = of_layer[["attention_entropy", "hdi"]], config.resampling
            means = prompt_means(values, of_layer["group"], bounds=POSITIVE, **resampling)
            rows.append({"end": end, "layer": layer, **estimate_columns(means), "n": means["attention_entropy"].n})
    return rows


def _prompt_mean_rows(model: TokenTables, config: DynamicsConfig) -> Rows:
    means = model.tokens.groupby(["prompt", "group"], as_index=False)[list(FEATURES)].mean()
    rows: Rows = []
    estimates = prompt_means(means[list(FEATURES)], means["group"], bounds=POSITIVE, **config.resampling)
    for name, estimate in estimates.items():
        values = model.tokens[name]
        over_tokens = {"token_mean": values.mean(), "token_sd": values.std(), "tokens": int(values.notna().sum())}
        rows.append({"metric": name, **estimate.columns("mean"), "n": estimate.n, **over_tokens})
    return rows
