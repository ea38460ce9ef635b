"""Traces of a study, opened from disk or made first, and models that a study runs itself."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxtrace.errors import StudyError, one_line
from jaxtrace.lock import WriteLock
from jaxtrace.model import Model
from jaxtrace.run import open_config_model, prepare
from jaxtrace.schema import definition_note
from jaxtrace.settings.prompt import StartMode
from jaxtrace.settings.run import RunConfig, run_config
from jaxtrace.statistics.means import finite_mean
from jaxtrace.studies._shared.progress import SILENT, Progress
from jaxtrace.studies._shared.settings import StudyConfig
from jaxtrace.traces import is_trace, open_trace
from jaxtrace.traces.layers import present_values
from jaxtrace.traces.reader import StoredRun, StoredTrace, split_runs
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace


def study_traces(config: StudyConfig, out: Path, progress: Progress = SILENT) -> dict[str, Trace]:
    """Return a study's traces by label: the model's name, or the trace's directory where two traces share a model.

    Args:
      config: names of the traces, or of the models to run; an interrupted run is resumed.
      out: directory of the study; new traces go to its traces/MODEL.

    Raises:
      StudyError: neither traces nor models are named, or both.
      JaxtraceError: a trace cannot be opened, or a run cannot be made.
    """
    if bool(config.traces) == bool(config.models):
        raise StudyError("give traces to study, or models to trace first (--model), and not both")
    if config.traces:
        opened = {place: open_trace(place) for place in config.traces}
        if note := definition_note(version for trace in opened.values() for version in trace.metrics_versions):
            warnings.warn(one_line(f"{', '.join(opened)}: {note}"), stacklevel=2)
        names = [str(trace.info.get("model", place)) for place, trace in opened.items()]
        counts = Counter(names)
        labels = [name if counts[name] == 1 else place for name, place in zip(names, opened, strict=True)]
        return dict(zip(labels, opened.values(), strict=True))
    return {
        model: progress.run(model, prepare(model_run_config(config, model, out), resume=True))
        for model in config.models
    }


def model_run_config(config: StudyConfig, model: str, out: Path) -> RunConfig:
    """Return the settings of the run of one of a study's models."""
    return run_config(**{"model": model, "out": str(out / "traces" / Path(model).name), **_run_fields(config)})


def _run_fields(config: StudyConfig) -> dict[str, Any]:
    """Return the settings of a study's runs; a sample of the prompts follows the study's seed."""
    return ({"seed": config.seed} if config.run.get("sample") else {}) | config.run


def discard_runs(config: StudyConfig, out: Path) -> None:
    """Delete the traces that an earlier study stored of these models in its own directory.

    Raises:
      StoreError: another program is writing one of them.
    """
    for model in config.models:
        directory = out / "traces" / Path(model).name
        if is_trace(directory):
            with WriteLock(directory):
                for table in filter(Path.is_dir, directory.iterdir()):  # first: after a kill, it is still a trace
                    shutil.rmtree(table)
                shutil.rmtree(directory)


def load_models(config: StudyConfig, lens: str | None = None) -> Iterator[tuple[str, Model, RunConfig]]:
    """Yield each model of a study with its name and the settings of its run, one model in memory at a time.

    Raises:
      StudyError: the settings name no model, or traces, which do not hold what the study measures.
      JaxtraceError: a model or the lens is unavailable.
    """
    if config.traces or not config.models:
        raise StudyError("this study runs models itself; name models (--model) and no traces")
    for name in config.models:
        run = run_config(**{**_run_fields(config), "model": name})
        if run.samples > 1:
            raise StudyError(f"samples: is {run.samples}; this study takes each prompt once, so drop it")
        yield name, Model.from_checkpoint(open_config_model(run), mesh=run.mesh).with_lens(lens), run


def single_runs(traces: Mapping[str, Trace]) -> dict[str, Trace]:
    """Split each dataset of several runs, such as a sweep's, into one trace per run."""
    return {
        f"{name}/{partition}".removesuffix("/"): run
        for name, trace in traces.items()
        for partition, run in split_runs(trace).items()
    }


def by_model(traces: Mapping[str, Trace]) -> dict[str, Trace]:
    """Split each dataset of several models or revisions into one trace per model and revision."""
    split: dict[str, Trace] = {}
    for name, trace in traces.items():
        runs: dict[tuple[str, str], list[StoredRun]] = {}
        for run in trace.runs if isinstance(trace, StoredTrace) else ():
            revision = run.info.get("revision_name") or run.info.get("revision")
            runs.setdefault((str(run.info.get("model")), str(revision)), []).append(run)
        if not isinstance(trace, StoredTrace) or len(runs) < 2:
            split[name] = trace
            continue
        revisions = Counter(model for model, _ in runs)
        for (model, revision), of_model in runs.items():
            label = f"{name}: {model}" if len(revisions) > 1 else name
            split[f"{label} at {revision}" if revisions[model] > 1 else label] = StoredTrace.of(of_model, trace.only)
    return split


def mean_by_step(row: Row, name: str, steps: Int[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """Return the mean of a metric over heads and the layers that have values, at some steps of a row, float64.

    NaN at a step where one of these layers has no finite value.
    """
    values = present_values(row, name)[steps]
    axes = tuple(range(1, values.ndim))
    return np.where(np.isfinite(values).all(axes), finite_mean(values, axes), np.nan)


def start_mode(trace: Trace) -> StartMode:
    """Return the setting of the start token that a trace's prompts were made with."""
    return (trace.info.get("prompt_format") or {}).get("bos", "auto")
