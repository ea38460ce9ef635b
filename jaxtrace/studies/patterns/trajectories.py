"""Attention entropies of answers, step by step and by layer and head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxtrace.errors import StudyError
from jaxtrace.studies._shared.traces import require
from jaxtrace.traces.trace import Row, Trace

ATTENTION = (
    "attention_entropy",
    "attention_varentropy",
    "attention_entropy_normalized",
    "attention_entropy_no_sink",
    "sink_mass",
)
OUTPUT = ("entropy", "varentropy")  # compared too, where they were recorded
OF_HEADS = ("attention_entropy", "attention_varentropy")


@dataclass(frozen=True)
class Trajectory:
    """What the steps of one answer say. Step 0, which draws the first token, reads the prompt alone.

    Attributes:
      row: number of the answer in its trace.
      group: number of its prompt; samples of one prompt share it.
      condition: what it is an answer of.
      values: metric → float64 [steps], mean over layers and heads.
      ln_keys: float64 [steps], ln of the positions that a step sees: those of the prompt, and one for each step before.
      heads: metric → float64 [layers, heads], mean over the steps after 0; NaN where there are none.
      prompt: metric → mean over layers and heads of what the prompt's positions say together: `row_entropy` and
        `row_entropy_var`; empty where they were not measured.
    """

    row: int
    group: int
    condition: str
    values: Mapping[str, np.ndarray]
    ln_keys: np.ndarray
    heads: Mapping[str, np.ndarray]
    prompt: Mapping[str, float]

    @property
    def steps(self) -> int:
        """Its number of steps, step 0 included."""
        return len(self.ln_keys)


def trajectories(label: str, trace: Trace, conditions: Sequence[str | None]) -> list[Trajectory]:
    """The answers of a trace that are of some condition; steps that drew nothing are left out.

    Args:
      label: the trace's name, for messages.
      trace: generated, with attention probes.
      conditions: of each row what it is an answer of; None leaves it out.

    Raises:
      StudyError: the trace has no attention probes, or is of given text.
    """
    require({label: trace}, *ATTENTION)
    if trace.info.get("mode") != "generate":
        raise StudyError(f"{label}: is a trace of given text; give one of generated text (without --score)")
    groups: dict[bytes, int] = {}
    found = []
    for number, (row, of) in enumerate(zip(trace.rows, conditions, strict=True)):
        drawn = np.flatnonzero(row.metrics["token"] >= 0)
        drawn = drawn[drawn >= row.prompt_steps]
        if of is None or not len(drawn):
            continue
        group = groups.setdefault(row.prompt_tokens.tobytes(), len(groups))
        names = [name for name in (*ATTENTION, *OUTPUT) if name in row.metrics]
        metrics = {name: row.metrics[name][drawn].astype(np.float64) for name in names}
        found.append(
            Trajectory(
                row=number,
                group=group,
                condition=of,
                values={name: _flat(array) for name, array in metrics.items()},
                ln_keys=np.log(len(row.prompt_tokens) + drawn - row.prompt_steps),
                heads={name: _after_first(metrics[name]) for name in OF_HEADS},
                prompt=_of_prompt(row) if trace.info.get("prompt_positions") else {},
            )
        )
    return found


def row_entropy_var(row: Row) -> np.ndarray:
    """Variance over the prompt's positions of their attention entropies, nats²: float64 [layers, heads].

    It is what keell0renz/llm-entropy-patterns calls varentropy. A decode step has one position, and so 0 by definition:
    it is not the varentropy of the weights.

    Args:
      row: traced with prompt positions.
    """
    return _prompt_entropies(row).var(axis=0)


def _prompt_entropies(row: Row) -> np.ndarray:
    """[positions, layers, heads]: the last position is that of step 0."""
    return row.metrics["attention_entropy"][: row.prompt_steps + 1].astype(np.float64)


def _of_prompt(row: Row) -> dict[str, float]:
    return {
        "row_entropy": float(np.nanmean(_prompt_entropies(row))),
        "row_entropy_var": float(np.nanmean(row_entropy_var(row))),
    }


def _flat(array: np.ndarray) -> np.ndarray:
    """Mean over all but the first axis; layers that do not attend are NaN, and left out."""
    return array if array.ndim == 1 else np.nanmean(array, axis=tuple(range(1, array.ndim)))


def _after_first(array: np.ndarray) -> np.ndarray:
    return array[1:].mean(0) if len(array) > 1 else np.full(array.shape[1:], np.nan)
