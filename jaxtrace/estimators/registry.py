"""Estimators by name: what each computes, from which metrics, at which cost.

An estimator is a function from a trace to `Scores`, which the decorator registers under the function's name:

    @estimator(formula="−ln p('True')", source="Kadavath et al. 2022 (arXiv 2207.05221)", passes="two")
    def p_true(trace: Trace, *, model: Model, template: str = TEMPLATE) -> Scores:

- The trace holds generated answers of one run. Rows have the metrics that selected estimators declare, and `token`.
- Keyword-only parameters are inputs. `estimate` gives an input to every function that has a parameter of its name. One
  without a default is required. `INPUTS` lists those that `jaxtrace estimate` can give; others are for Python.
- The function raises `LackingError` for what the trace or an input lacks, beyond declared metrics and samples, which
  the decorator checks. With "all", `estimate` lists and skips such estimators; every other error ends it.
- Scores keep the sign of their source (`higher_is_uncertain`). An answer without a score is NaN.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Literal, ParamSpec

import numpy as np

from jaxtrace.errors import ConfigError, LackingError
from jaxtrace.estimators.scores import Scores
from jaxtrace.plugins import Registry, failures_named, place_of
from jaxtrace.settings.validation import did_you_mean
from jaxtrace.traces.requirements import require_metrics, require_samples
from jaxtrace.traces.trace import Trace

Options = ParamSpec("Options")
# Columns of a table of scores that say which answer a row scores.
IDENTIFIERS = ("run", "row", "prompt", "group", "completion", "tokens")
# What an estimator needs beside the run of the model that made the trace: nothing, one more pass over each answer,
# several samples of each prompt, or a fit to labelled or other answers.
Passes = Literal["one", "two", "samples", "fit"]
# Inputs that `jaxtrace estimate` gives, and the option of each.
INPUTS = {
    "model": "the model that made the trace (--model)",
    "labels": "labels of the answers (--labels): [rows], 1 right, 0 wrong, NaN unknown",
    "training": "trace of other prompts to fit (--training)",
    "layer": "the layer of residuals (--layer)",
    "background": "trace of unrelated prompts (--background)",
    "equivalence": "comparison of two answers: whether they mean the same (--equivalence)",
    "similarity": "comparison of two answers: 0 … 1 (--similarity)",
}


@dataclass(frozen=True)
class Estimator:
    """An estimator of uncertainty.

    Attributes:
      name: name of its function.
      compute: function from a trace, and the inputs below as keywords, to scores.
      formula: its definition in one line.
      source: paper that it is from; "" for a statistic of this package.
      metrics: metrics and raw material that the trace must have.
      passes: passes of the model that it needs.
      higher_is_uncertain: False for a score that rises with confidence; scores keep the sign of their source.
      inputs: keywords of `compute`, beside the trace: "model", "labels", ….
      required: keywords without a default.
    """

    name: str
    compute: Callable[..., Scores]
    formula: str
    source: str
    metrics: tuple[str, ...]
    passes: Passes
    higher_is_uncertain: bool
    inputs: tuple[str, ...]
    required: tuple[str, ...]

    def scores(self, trace: Trace, inputs: Mapping[str, Any]) -> Scores:
        """Return the scores of a trace, computed with those of some inputs that the function has parameters for.

        Raises:
          LackingError: a metric, samples or a required input is missing.
          ConfigError: a user's function fails, or does not give one score per row.
        """
        if lacking := [name for name in self.required if inputs.get(name) is None]:
            what = INPUTS.get(lacking[0], f"it as {lacking[0]}=")
            raise LackingError(f"{self.name}: needs {lacking[0]}; give {what}")
        with nullcontext() if self.compute.__module__.startswith("jaxtrace.") else failures_named(self.name):
            scores = self.compute(trace, **{name: value for name, value in inputs.items() if name in self.inputs})
            if not isinstance(scores, Scores):
                raise ConfigError(f"{self.name}: returns a {type(scores).__name__}; return jt.estimators.Scores")
            answers = np.asarray(scores.answers, float)
        if answers.shape != (len(trace.rows),):
            raise ConfigError(
                f"{self.name}: gave scores of shape {answers.shape} for {len(trace.rows)} answers; give one each"
            )
        return replace(scores, answers=answers)


ESTIMATORS: Registry[Estimator] = Registry("estimators")


def estimator(
    *,
    formula: str,
    source: str = "",
    metrics: tuple[str, ...] = (),
    passes: Passes = "one",
    higher_is_uncertain: bool = True,
) -> Callable[[Callable[Concatenate[Trace, Options], Scores]], Callable[Concatenate[Trace, Options], Scores]]:
    """Return a decorator that registers a function (trace, *, inputs) → Scores as an estimator of the function's name.

    The decorated function raises LackingError, which names the options to record, if the trace lacks a metric or, for
    passes "samples", several answers to a prompt.

    Args:
      formula, source, metrics, passes, higher_is_uncertain: attributes of `Estimator`.
    """

    def register(
        function: Callable[Concatenate[Trace, Options], Scores],
    ) -> Callable[Concatenate[Trace, Options], Scores]:
        name = function.__name__
        if name in IDENTIFIERS:
            raise ConfigError(f"{name!r} is a column of every table of scores; rename the estimator")

        @functools.wraps(function)
        def compute(trace: Trace, *args: Options.args, **inputs: Options.kwargs) -> Scores:
            require_metrics({name: trace}, *metrics)
            if passes == "samples":
                require_samples(name, trace)
            return function(trace, *args, **inputs)

        keywords = [each for each in inspect.signature(function).parameters.values() if each.kind == each.KEYWORD_ONLY]
        inputs = tuple(each.name for each in keywords)
        required = tuple(each.name for each in keywords if each.default is each.empty)
        made = Estimator(name, compute, formula, source, metrics, passes, higher_is_uncertain, inputs, required)
        ESTIMATORS.register(name, made, place_of(function))
        return compute

    return register


def known_estimators() -> dict[str, Estimator]:
    """Return every estimator by name: those of `jaxtrace.estimators`, of decorators and of entry points."""
    return ESTIMATORS.all()


def is_every(names: Sequence[str] | str) -> bool:
    """Return True for the names of all estimators: "all"."""
    return names == "all" or [*names] == ["all"]


def find_estimators(names: Sequence[str] | str = "all") -> list[Estimator]:
    """Return estimators by name, all of them for "all"; raises ConfigError for a name that is unknown."""
    if is_every(names):
        return [*ESTIMATORS.all().values()]
    found = {name: ESTIMATORS.find(name) for name in ([names] if isinstance(names, str) else names)}
    if unknown := [name for name, each in found.items() if each is None]:
        known = ESTIMATORS.names
        raise ConfigError(f"no estimator {unknown[0]!r}{did_you_mean(unknown[0], known)}there are: {', '.join(known)}")
    return [each for each in found.values() if each is not None]
