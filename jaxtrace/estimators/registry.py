"""Estimators by name: what each computes, from which metrics, at which cost."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, Literal, ParamSpec

from jaxtrace.estimators.scores import Scores
from jaxtrace.plugins import Registry, place_of
from jaxtrace.traces.requirements import require_metrics
from jaxtrace.traces.trace import Trace

Options = ParamSpec("Options")
# What an estimator needs beside the run of the model that made the trace: nothing, one more pass over each answer,
# several samples of each prompt, or a fit to labelled or other answers.
Passes = Literal["one", "two", "samples", "fit"]


@dataclass(frozen=True)
class Estimator:
    """An estimator of uncertainty.

    Attributes:
      name: name of its function.
      compute: function from a trace, and the inputs below as keywords, to scores.
      formula: its definition in one line.
      source: paper that it is from.
      metrics: metrics and raw material that the trace must have.
      passes: passes of the model that it needs.
      higher_is_uncertain: False for a score that rises with confidence; scores keep the sign of their source.
      inputs: required keywords of `compute`, beside the trace: "model", "labels", ….
    """

    name: str
    compute: Callable[..., Scores]
    formula: str
    source: str
    metrics: tuple[str, ...]
    passes: Passes
    higher_is_uncertain: bool
    inputs: tuple[str, ...]


ESTIMATORS: Registry[Estimator] = Registry("estimators")


def estimator(
    *,
    formula: str,
    source: str,
    metrics: tuple[str, ...] = (),
    passes: Passes = "one",
    higher_is_uncertain: bool = True,
) -> Callable[[Callable[Concatenate[Trace, Options], Scores]], Callable[Concatenate[Trace, Options], Scores]]:
    """Return a decorator that registers a function (trace, *, inputs) → Scores as an estimator of the function's name.

    The decorated function raises StudyError, which names the options to record, if the trace lacks a metric.

    Args:
      formula, source, metrics, passes, higher_is_uncertain: attributes of `Estimator`.
    """

    def register(
        function: Callable[Concatenate[Trace, Options], Scores],
    ) -> Callable[Concatenate[Trace, Options], Scores]:
        name = function.__name__

        @functools.wraps(function)
        def compute(trace: Trace, *args: Options.args, **inputs: Options.kwargs) -> Scores:
            require_metrics({name: trace}, *metrics)
            return function(trace, *args, **inputs)

        keywords = [each for each in inspect.signature(function).parameters.values() if each.kind == each.KEYWORD_ONLY]
        required = tuple(each.name for each in keywords if each.default is each.empty)
        made = Estimator(name, compute, formula, source, metrics, passes, higher_is_uncertain, required)
        ESTIMATORS.register(name, made, place_of(function))
        return compute

    return register


def known_estimators() -> dict[str, Estimator]:
    """Return every estimator by name: those of `jaxtrace.estimators`, of decorators and of entry points."""
    return ESTIMATORS.all()
