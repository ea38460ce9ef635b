"""Tables of answers by condition: how many, step by step, by layer, by head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from jaxtrace.studies._shared.result import Table
from jaxtrace.studies.patterns.trajectories import OF_HEADS, Trajectory
from jaxtrace.traces.trace import Trace

ALONG = ("attention_entropy", "attention_varentropy", "attention_entropy_normalized")
Answers = Mapping[str, Sequence[Trajectory]]


def conditions(found: Answers) -> Table:
    """How many answers there are, and how long."""
    rows = [
        {
            "model": label,
            "condition": condition,
            "prompts": len({one.group for one in answers}),
            "answers": len(answers),
            "mean_steps": np.mean([one.steps for one in answers]),
            "mean_prompt_tokens": np.mean([np.exp(one.ln_keys[0]) for one in answers]),
        }
        for label, condition, answers in _by_condition(found)
    ]
    return Table(pd.DataFrame(rows), "The answers compared: how many, their steps, and the tokens of their prompts.")


def steps(found: Answers) -> Table:
    """Means over the answers that are still alive at a step."""
    rows = []
    for label, condition, answers in _by_condition(found):
        longest = max(one.steps for one in answers)
        for name in ALONG:
            values = np.full((len(answers), longest), np.nan)
            for i, one in enumerate(answers):
                values[i, : one.steps] = one.values[name]
            place = {"model": label, "condition": condition, "metric": name, "step": np.arange(longest)}
            rows.append(interval_of_means(values).assign(**place))
    columns = ["model", "condition", "metric", "step", "mean", "mean_low", "mean_high", "n"]
    table = pd.concat(rows).reindex(columns=columns)
    return Table(table, "Means over layers, heads and answers still alive, with 95 % t intervals over answers.")


def layers(found: Answers, traces: Mapping[str, Trace]) -> Table:
    """Means over heads of each layer, and the standard deviation over them."""
    rows = []
    for label, condition, answers in _by_condition(found):
        for name in OF_HEADS:
            values = np.array([one.heads[name] for one in answers])
            place = {"model": label, "condition": condition, "metric": name, "layer": traces[label].traced_layers}
            rows.append(interval_of_means(values.mean(2)).assign(**place, over_heads=values.mean(0).std(1)))
    columns = ["model", "condition", "metric", "layer", "mean", "mean_low", "mean_high", "over_heads", "n"]
    table = pd.concat(rows).reindex(columns=columns)
    return Table(
        table,
        "Means over heads, steps after 0 and answers, with 95 % t intervals over answers; over_heads is the standard "
        "deviation of the heads' own means.",
    )


def heads(found: Answers, traces: Mapping[str, Trace]) -> Table:
    """Means of each head."""
    rows = []
    for label, condition, answers in _by_condition(found):
        means = {name: np.mean([one.heads[name] for one in answers], axis=0) for name in OF_HEADS}
        for i, layer in enumerate(traces[label].traced_layers):
            for head in range(means[OF_HEADS[0]].shape[1]):
                of_head = {name: mean[i, head] for name, mean in means.items()}
                key = {"model": label, "condition": condition, "layer": layer, "head": head}
                rows.append(key | of_head | {"n": len(answers)})
    return Table(pd.DataFrame(rows), "Means over the steps after 0 and over answers, of each head.")


def interval_of_means(values: np.ndarray) -> pd.DataFrame:
    """Column means of [answers, columns], NaN left out, with 95 % t intervals: mean, mean_low, mean_high, n."""
    n = np.isfinite(values).sum(0)
    total = np.where(np.isfinite(values), values, 0)
    mean = np.divide(total.sum(0), n, out=np.full(len(n), np.nan), where=n > 0)
    squares = np.where(np.isfinite(values), (values - mean) ** 2, 0).sum(0)
    freedom = np.maximum(n - 1, 1)
    half = np.where(n > 1, stats.t.ppf(0.975, freedom) * np.sqrt(squares / freedom / np.maximum(n, 1)), np.nan)
    return pd.DataFrame({"mean": mean, "mean_low": mean - half, "mean_high": mean + half, "n": n})


def _by_condition(found: Answers) -> Iterator[tuple[str, str, list[Trajectory]]]:
    for label, answers in found.items():
        for condition in dict.fromkeys(one.condition for one in answers):
            yield label, condition, [one for one in answers if one.condition == condition]
