"""The traces that a study is of: opened where they lie, or made first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from jaxtrace.errors import StudyError
from jaxtrace.run import Run, RunConfig, prepare, run_config
from jaxtrace.schema import QUANTITIES
from jaxtrace.traces import open_trace
from jaxtrace.traces.trace import Trace


class StudyConfig(BaseModel):
    """What every study may be told. Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    traces: tuple[str, ...] = Field((), description="directories or URLs of traces to study")
    models: tuple[str, ...] = Field((), description="models to trace first, where no traces are given")
    run: dict[str, Any] = Field({}, description="settings of these runs, as a trace takes them")
    seed: int = Field(0, ge=0, lt=2**32, description="of all that a study draws at random")


def traces_of(
    config: StudyConfig, out: Path, on_run: Callable[[str, Run], Trace] = lambda _, run: run.trace()
) -> dict[str, Trace]:
    """The traces of a study, by label: the model's name, or the directory's where two are of one model.

    Args:
      config: names the traces, or the models to run. A run that was begun is gone on with.
      out: directory of the study; traces that are made go to traces/MODEL in it.
      on_run: takes a label and a run that is ready, and runs it.

    Raises:
      StudyError: neither traces nor models are named, or both.
      JaxtraceError: a trace cannot be opened, or a run cannot be made.
    """
    if bool(config.traces) == bool(config.models):
        raise StudyError("give traces to study, or models to trace first (--model), and not both")
    if config.traces:
        opened = {place: open_trace(place) for place in config.traces}
        names = [str(trace.info.get("model", place)) for place, trace in opened.items()]
        counts = Counter(names)
        labels = [name if counts[name] == 1 else place for name, place in zip(names, opened, strict=True)]
        return dict(zip(labels, opened.values(), strict=True))
    made = {}
    for model in config.models:
        made[model] = on_run(model, prepare(traced_config(config, model, out), resume=True))
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
