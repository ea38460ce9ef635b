"""Scores of a trace's answers by some estimators, as one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from jaxtrace import interrupts
from jaxtrace.errors import ConfigError, LackingError, StudyError, shown
from jaxtrace.estimators.equivalence import share_comparers
from jaxtrace.estimators.registry import IDENTIFIERS, Estimator, find_estimators, is_every
from jaxtrace.grading.labels import digest
from jaxtrace.traces.reader import split_runs
from jaxtrace.traces.requirements import require_generated, require_rows, require_tokens
from jaxtrace.traces.trace import Trace

OnCount = Callable[[int, int, str], None]  # called with (estimators done, estimators in all, estimator at work)


def estimate(
    trace: Trace,
    names: Sequence[str] | str = "all",
    *,
    on_count: OnCount = lambda done, total, name: None,
    **inputs: Any,
) -> pd.DataFrame:
    """Score each answer of a trace by some estimators.

    Args:
      trace: trace of generated answers; the runs of a dataset are scored one by one.
      names: names of estimators, or "all" for those whose metrics and inputs are present.
      on_count: called before and after each estimator of each run.
      inputs: inputs of estimators by name, see `registry.INPUTS`; each estimator gets those that it has parameters for.

    Returns:
      A row per row of the trace. Columns: run (its place in a dataset, "" for a single run), row (number in the trace),
      prompt (its id), group (number of the prompt, which its samples in all runs share), completion (digest of the
      answer, as in files of labels), tokens (number of drawn tokens), then a column per estimator, NaN where it has no
      score.
      `attrs["lacking"]` says for each estimator of "all" that is absent, or NaN in a run of a dataset, what it lacks.

    Raises:
      ConfigError: no estimator has such a name, or none is named.
      StudyError: the trace has no generated answer, or no estimator of "all" can be computed.
      LackingError: the trace or the inputs lack what a named estimator needs.
    """
    chosen, inputs = find_estimators(names), share_comparers(inputs)
    if not chosen:
        raise ConfigError("no estimators; name some, or give all")
    runs = split_runs(trace)
    labels = None if inputs.get("labels") is None else np.asarray(inputs["labels"])
    if labels is not None and labels.shape[:1] != (len(trace.rows),):
        raise StudyError(f"estimate: {labels.size} labels for {len(trace.rows)} answers; give one for each answer")
    lacking: dict[str, tuple[str, str]] = {}
    prompts: dict[str, int] = {}
    frames, first = [], 0
    for number, (partition, whole) in enumerate(runs.items()):
        label = partition or "the trace"
        require_rows({label: whole})
        require_generated(label, whole)
        require_tokens(label, whole)
        run = _with_metrics(whole, {name for each in chosen for name in each.metrics})
        of_run = dict(inputs)
        if labels is not None:
            of_run["labels"] = labels[first : first + len(run.rows)]
        columns: dict[str, Any] = {
            "run": partition,
            "row": np.arange(first, first + len(run.rows)),
            "prompt": [row.prompt.id for row in run.rows],
            "group": [prompts.setdefault(row.prompt_key, len(prompts)) for row in run.rows],
            "completion": [digest(row.text) for row in run.rows],
            "tokens": [len(row.drawn_steps) for row in run.rows],
        }
        for done, each in enumerate(chosen, number * len(chosen)):
            interrupts.check()
            on_count(done, len(runs) * len(chosen), each.name)
            try:
                columns[each.name] = each.scores(run, of_run).answers
            except LackingError as error:
                if not is_every(names):
                    raise
                lacking.setdefault(each.name, (str(error), partition))
        on_count((number + 1) * len(chosen), len(runs) * len(chosen), "")
        frames.append(pd.DataFrame(columns))
        first += len(run.rows)
    frame = pd.concat(frames, ignore_index=True)
    scored = [each.name for each in chosen if each.name in frame]
    if not scored:
        raise StudyError(next(iter(lacking.values()))[0])
    frame = frame[[*IDENTIFIERS, *scored]]
    frame.attrs["lacking"] = {
        name: f"{what} (run {shown(partition)})" if name in frame else what
        for name, (what, partition) in lacking.items()
    }
    return frame


def score_columns(frame: pd.DataFrame) -> list[Estimator]:
    """Return the estimators that a table of `estimate` has columns of."""
    return find_estimators([name for name in frame.columns if name not in IDENTIFIERS])


def _with_metrics(trace: Trace, metrics: Iterable[str]) -> Trace:
    """Return a trace in memory with some of its metrics: tables are read once, however many estimators there are."""
    kept = {"token", *metrics}
    rows = []
    for row in trace.rows:
        interrupts.check()
        rows.append(replace(row, metrics={name: values for name, values in row.metrics.items() if name in kept}))
    return Trace(rows, trace.info)
