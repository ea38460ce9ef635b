"""Tables of answers by condition: counts, and means by step, by layer and by head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from jaxtrace.statistics.intervals import finite_mean, mean_intervals
from jaxtrace.studies._shared.result import Table
from jaxtrace.studies.patterns.trajectories import HEAD_METRICS, Trajectory
from jaxtrace.traces.trace import Trace

STEP_METRICS = ("attention_entropy", "attention_varentropy", "attention_entropy_normalized")
MEAN = ["mean", "mean_low", "mean_high"]
AnswersByTrace = Mapping[str, Sequence[Trajectory]]


def conditions_table(answers: AnswersByTrace) -> Table:
    """Return numbers and lengths of the answers."""
    rows = [
        {
            "model": label,
            "condition": condition,
            "prompts": len({answer.group for answer in part}),
            "answers": len(part),
            "mean_steps": np.mean([answer.steps for answer in part]),
            "mean_prompt_tokens": np.mean([np.exp(answer.ln_keys[0]) for answer in part]),
        }
        for label, condition, part in _by_condition(answers)
    ]
    return Table(pd.DataFrame(rows), "Numbers of compared answers, with their mean steps and prompt tokens.")


def steps_table(answers: AnswersByTrace) -> Table:
    """Return means over the answers that reach a step."""
    frames = []
    for label, condition, part in _by_condition(answers):
        longest = max(answer.steps for answer in part)
        for name in STEP_METRICS:
            values = np.full((len(part), longest), np.nan)
            for i, answer in enumerate(part):
                values[i, : answer.steps] = answer.values[name]
            keys = {"model": label, "condition": condition, "metric": name, "step": np.arange(longest)}
            frames.append(mean_intervals(values).assign(**keys))
    return Table(
        pd.concat(frames).reindex(columns=["model", "condition", "metric", "step", *MEAN, "n"]),
        "Means over layers, heads and the answers that reach the step, with 95 % t intervals over answers.",
    )


def layers_table(answers: AnswersByTrace, traces: Mapping[str, Trace]) -> Table:
    """Return means over the heads of each layer, and their standard deviation."""
    frames = []
    for label, condition, part in _by_condition(answers):
        for name in HEAD_METRICS:
            values = np.array([answer.heads[name] for answer in part])
            keys = {"model": label, "condition": condition, "metric": name, "layer": traces[label].traced_layers}
            frames.append(mean_intervals(values.mean(2)).assign(**keys, over_heads=finite_mean(values, 0).std(1)))
    return Table(
        pd.concat(frames).reindex(columns=["model", "condition", "metric", "layer", *MEAN, "over_heads", "n"]),
        "Means over heads, steps after 0 and answers, with 95 % t intervals over answers; over_heads is the standard "
        "deviation over the heads' means.",
    )


def heads_table(answers: AnswersByTrace, traces: Mapping[str, Trace]) -> Table:
    """Return means of each head."""
    rows = []
    for label, condition, part in _by_condition(answers):
        values = {name: np.array([answer.heads[name] for answer in part]) for name in HEAD_METRICS}
        means = {name: finite_mean(of_metric, 0) for name, of_metric in values.items()}
        counts = np.isfinite(values[HEAD_METRICS[0]]).sum(0)
        for i, layer in enumerate(traces[label].traced_layers):
            for head in range(means[HEAD_METRICS[0]].shape[1]):
                keys = {"model": label, "condition": condition, "layer": layer, "head": head}
                rows.append(keys | {name: mean[i, head] for name, mean in means.items()} | {"n": counts[i, head]})
    return Table(pd.DataFrame(rows), "Means of each head over the steps after 0 and over the n answers with a value.")


def _by_condition(answers: AnswersByTrace) -> Iterator[tuple[str, str, list[Trajectory]]]:
    for label, of_trace in answers.items():
        for condition in dict.fromkeys(answer.condition for answer in of_trace):
            yield label, condition, [answer for answer in of_trace if answer.condition == condition]
