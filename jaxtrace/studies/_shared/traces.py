"""The traces that a study is of: opened where they lie, or made first."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from jaxtrace.errors import StudyError
from jaxtrace.run import RunConfig, prepare, run_config
from jaxtrace.schema import QUANTITIES, definition_note
from jaxtrace.studies._shared.progress import SILENT, Progress
from jaxtrace.studies._shared.settings import StudyConfig
from jaxtrace.traces import open_trace
from jaxtrace.traces.trace import Trace


def traces_of(config: StudyConfig, out: Path, progress: Progress = SILENT) -> dict[str, Trace]:
    """Return a study's traces by label: the model's name, or the trace's directory where two traces share a model.

    Args:
      config: names of the traces, or of the models to run; an interrupted run is resumed.
      out: directory of the study; new traces go to its traces/MODEL.
      progress: shows the runs.

    Raises:
      StudyError: neither traces nor models are named, or both.
      JaxtraceError: a trace cannot be opened, or a run cannot be made.
    """
    if bool(config.traces) == bool(config.models):
        raise StudyError("give traces to study, or models to trace first (--model), and not both")
    if config.traces:
        opened = {place: open_trace(place) for place in config.traces}
        if note := definition_note(version for trace in opened.values() for version in trace.metrics_versions):
            warnings.warn(f"{', '.join(opened)}: {note}", stacklevel=2)
        names = [str(trace.info.get("model", place)) for place, trace in opened.items()]
        counts = Counter(names)
        labels = [name if counts[name] == 1 else place for name, place in zip(names, opened, strict=True)]
        return dict(zip(labels, opened.values(), strict=True))
    made = {}
    for model in config.models:
        made[model] = progress.run(model, prepare(traced_config(config, model, out), resume=True))
    return made


def traced_config(config: StudyConfig, model: str, out: Path) -> RunConfig:
    """Settings of the run of one of a study's models."""
    return run_config(**{"model": model, "out": str(out / "traces" / Path(model).name), **config.run})


def require(traces: Mapping[str, Trace], *metrics: str) -> None:
    """Raises StudyError, which names the probes to record, where a trace lacks one of some metrics."""
    for label, trace in traces.items():
        there = set(trace.rows[0].metrics) if len(trace.rows) else set()
        if missing := [name for name in metrics if name not in there]:
            groups = sorted({QUANTITIES[name].group for name in missing})
            raise StudyError(
                f"{label}: has no {', '.join(missing)}; trace it again with --probes that include {','.join(groups)}"
                if len(trace.rows)
                else f"{label}: has no finished prompt; go on with its run"
            )
