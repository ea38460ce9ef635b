"""Requirements that a study or an estimator has of a trace: rows, drawn tokens, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from jaxtrace.errors import LackingError, StudyError
from jaxtrace.schema import GROUPS, QUANTITIES
from jaxtrace.traces.trace import Trace


def require_rows(traces: Mapping[str, Trace]) -> None:
    """Raise StudyError if a trace has no row, as an interrupted run before its first part."""
    if empty := [label for label, trace in traces.items() if not len(trace.rows)]:
        raise StudyError(f"{empty[0]}: has no finished prompt; resume its run")


def require_tokens(label: str, trace: Trace) -> None:
    """Raise StudyError if no step of a trace drew a token."""
    if not any(len(row.drawn_steps) for row in trace.rows):
        raise StudyError(f"{label}: has no step with finite logits; trace another model")


def require_metrics(traces: Mapping[str, Trace], *metrics: str) -> None:
    """Raise LackingError, which names the options that record them, if a trace lacks some metrics."""
    require_rows(traces)
    for label, trace in traces.items():
        if missing := missing_metrics(trace, metrics):
            raise LackingError(f"{label}: has no {', '.join(missing)}; trace it again with {options_for(missing)}")


def require_generated(label: str, trace: Trace) -> None:
    """Raise StudyError unless a trace holds generated text."""
    if trace.info.get("mode") != "generate":
        raise StudyError(f"{label}: is a trace of given text; give one of generated text (without --score)")


def require_samples(label: str, trace: Trace) -> None:
    """Raise LackingError unless some prompt has several answers."""
    if not (np.bincount(prompt_numbers(trace)) > 1).any():
        raise LackingError(f"{label}: has one answer to each prompt; trace it again with --samples 10 --sampler sample")


def prompt_numbers(trace: Trace) -> Int[np.ndarray, " rows"]:
    """Return the number of each row's prompt, from 0 in order of appearance; samples of a prompt share it."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(row.prompt_key, len(numbers)) for row in trace.rows], int)


def missing_metrics(trace: Trace, metrics: Sequence[str]) -> list[str]:
    """Return the metrics, or kinds of raw material, that the first row of a trace lacks."""
    return [name for name in metrics if name not in trace.rows[0].metrics]


def options_for(metrics: Sequence[str]) -> str:
    """Return the options of the command line that record metrics or raw material, as text."""
    groups = {QUANTITIES[name].group for name in metrics if name in QUANTITIES}
    probes = [group for group in GROUPS if group in groups]
    options = [f"--{group.replace('_', '-')}" for group in sorted(groups.difference(GROUPS))]
    options += [f"a metric of a step named {name}" for name in metrics if name not in QUANTITIES]
    return " and ".join([f"--probes that include {','.join(probes)}"] * bool(probes) + options)
