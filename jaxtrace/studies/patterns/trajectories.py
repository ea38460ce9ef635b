"""Attention entropies of answers, step by step and by layer and head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.means import finite_mean
from jaxtrace.studies._shared.labels import SHARED_KEYS
from jaxtrace.studies._shared.traces import mean_by_step
from jaxtrace.traces.layers import LayerCount, layer_count, layers_note, layers_text
from jaxtrace.traces.requirements import require_generated, require_metrics, require_tokens
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

ATTENTION = (
    "attention_entropy",
    "attention_varentropy",
    "attention_entropy_normalized",
    "attention_entropy_no_sink",
    "sink_mass",
)
OUTPUT = ("entropy", "varentropy")  # compared too, if recorded
HEAD_METRICS = ("attention_entropy", "attention_varentropy")


@dataclass(frozen=True)
class Trajectory:
    """Metrics along the steps of one answer. Step 0, which draws the first token, attends to the prompt alone.

    Attributes:
      row: number of the answer in its trace.
      group: number of its prompt; samples of one prompt share it.
      pair: subject of its prompt, such as "topic rain", or else "prompt NUMBER"; see `comparisons.pairing`.
      condition: condition of the answer.
      values: metric → float64 [steps], mean over heads and the layers that have values.
      ln_keys: float64 [steps], ln of the number of visible positions: the prompt's, and one per step before.
      heads: metric → float64 [layers, heads], mean over the steps after 0; NaN if there are none.
      prompt: metric → mean over layers and heads of a statistic over the prompt's positions: `row_entropy` and
        `row_entropy_var`; empty if the positions were not traced.
      layers: numbers of the layers with attention weights, and of the recorded ones; None if no logits were finite.
    """

    row: int
    group: int
    pair: str
    condition: str
    values: Mapping[str, np.ndarray]
    ln_keys: np.ndarray
    heads: Mapping[str, np.ndarray]
    prompt: Mapping[str, float]
    layers: LayerCount | None

    @property
    def steps(self) -> int:
        """Number of steps, step 0 included."""
        return len(self.ln_keys)

    def after_first(self, metric: str) -> np.ndarray:
        """Return a metric at the steps after 0."""
        return self.values[metric][1:]


def trajectories(label: str, trace: Trace, conditions: Sequence[str | None]) -> list[Trajectory]:
    """Return the answers of a trace that have a condition; steps that drew no token are dropped.

    Args:
      trace: generated trace with attention probes.
      conditions: condition of each row; None excludes the row.

    Raises:
      StudyError: the trace has no attention probes, holds given text, or has no drawn token.
    """
    require_metrics({label: trace}, *ATTENTION)
    require_generated(label, trace)
    require_tokens(label, trace)
    groups: dict[bytes, int] = {}
    answers = []
    for number, (row, condition) in enumerate(zip(trace.rows, conditions, strict=True)):
        steps = row.drawn_steps
        if condition is None or not len(steps):
            continue
        group = groups.setdefault(row.prompt_tokens.tobytes(), len(groups))
        about = (f"{key} {row.prompt.meta[key]}" for key in SHARED_KEYS if key in row.prompt.meta)
        names = [name for name in (*ATTENTION, *OUTPUT) if name in row.metrics]
        metrics = {name: row.metrics[name][steps].astype(np.float64) for name in names}
        answers.append(
            Trajectory(
                row=number,
                group=group,
                pair=next(about, f"prompt {group}"),
                condition=condition,
                values={name: mean_by_step(row, name, steps) for name in names},
                ln_keys=np.log(len(row.prompt_tokens) + steps - row.prompt_steps),
                heads={name: finite_mean(metrics[name][1:], 0) for name in HEAD_METRICS},
                prompt=_prompt_statistics(row) if trace.info.get("prompt_positions") else {},
                layers=layer_count(row, ATTENTION[0]),
            )
        )
    return answers


def attention_notes(label: str, trace: Trace, answers: Iterable[Trajectory]) -> list[str]:
    """Return a note on the number of layers that attention metrics are means over, unless these are all."""
    text = layers_text((answer.layers for answer in answers), trace.num_layers)
    return [layers_note(f"{label}: {', '.join(ATTENTION)}", text)] if text else []


def prompt_numbers(answers: Iterable[Trajectory]) -> np.ndarray:
    """Return the number of each answer's prompt."""
    return np.array([answer.group for answer in answers])


def without_ln_keys(series: Sequence[np.ndarray], answers: Sequence[Trajectory]) -> list[np.ndarray]:
    """Return a metric after step 0 without its regression on ln(keys), which is fitted over all answers."""
    keys = np.concatenate([answer.ln_keys[1:] for answer in answers])
    ends = np.cumsum([len(of_answer) for of_answer in series])[:-1]
    return np.split(residualize(np.concatenate(series), keys), ends)


def _prompt_statistics(row: Row) -> dict[str, float]:
    """Return the mean over the prompt's positions, and the variance over them, of their attention entropies.

    keell0renz/llm-entropy-patterns calls the variance (nats²) varentropy. It is not the varentropy of the weights: a
    decode step has one position, for which it is 0 by definition. The prompt's last position is step 0.
    """
    entropies = row.metrics["attention_entropy"][: row.prompt_steps + 1].astype(np.float64)
    return {"row_entropy": float(finite_mean(entropies)), "row_entropy_var": float(finite_mean(entropies.var(axis=0)))}
