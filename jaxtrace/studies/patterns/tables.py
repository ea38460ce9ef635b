"""Tables of answers by condition: counts, and means by step, by layer and by head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from jaxtrace.statistics.intervals import mean_intervals
from jaxtrace.statistics.means import finite_mean
from jaxtrace.studies._shared.result import Table
from jaxtrace.studies.patterns.trajectories import HEAD_METRICS, Trajectory, prompt_numbers, without_ln_keys
from jaxtrace.traces.trace import Trace

STEP_METRICS = ("attention_entropy", "attention_varentropy", "attention_entropy_normalized")
RESIDUAL = "attention_entropy_given_ln_keys"
MEAN = ["mean", "mean_low", "mean_high", "mean_few"]
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
    residuals = {label: _residuals(of_trace) for label, of_trace in answers.items()}
    for label, condition, part in _by_condition(answers):
        longest = max(answer.steps for answer in part)
        for name in (RESIDUAL, *STEP_METRICS):
            values = np.full((len(part), longest), np.nan)
            for i, answer in enumerate(part):
                if name == RESIDUAL:
                    values[i, 1 : answer.steps] = residuals[label][answer.row]
                else:
                    values[i, : answer.steps] = answer.values[name]
            keys = {"model": label, "condition": condition, "metric": name, "step": np.arange(longest)}
            frames.append(mean_intervals(values, prompt_numbers(part)).assign(**keys))
    return Table(
        pd.concat(frames).reindex(columns=["model", "condition", "metric", "step", *MEAN, "n"]),
        "Means over layers, heads and the answers that reach the step, with 95 % t intervals over n prompts. "
        f"{RESIDUAL} is the residual of a regression on ln(keys) over the steps after 0 of all answers.",
    )


def layers_table(answers: AnswersByTrace, traces: Mapping[str, Trace]) -> Table:
    """Return means over the heads of each layer, and their standard deviation."""
    frames = []
    for label, condition, part in _by_condition(answers):
        for name in HEAD_METRICS:
            values = np.array([answer.heads[name] for answer in part])
            keys = {"model": label, "condition": condition, "metric": name, "layer": traces[label].traced_layers}
            frames.append(
                mean_intervals(values.mean(2), prompt_numbers(part)).assign(
                    **keys, over_heads=finite_mean(values, 0).std(1)
                )
            )
    return Table(
        pd.concat(frames).reindex(columns=["model", "condition", "metric", "layer", *MEAN, "over_heads", "n"]),
        "Means over heads, steps after 0 and answers, with 95 % t intervals over n prompts; over_heads is the standard "
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


def _residuals(answers: Sequence[Trajectory]) -> dict[int, np.ndarray]:
    """Return the attention entropy after step 0 of each answer, by its row, without its regression on ln(keys)."""
    series = without_ln_keys([answer.after_first("attention_entropy") for answer in answers], answers)
    return {answer.row: values for answer, values in zip(answers, series, strict=True)}


def _by_condition(answers: AnswersByTrace) -> Iterator[tuple[str, str, list[Trajectory]]]:
    for label, of_trace in answers.items():
        for condition in dict.fromkeys(answer.condition for answer in of_trace):
            yield label, condition, [answer for answer in of_trace if answer.condition == condition]
