"""Verbs that show what exists: `report`, `models`, `info`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from jaxtrace.cli.checks import check_model
from jaxtrace.cli.existing import OverwriteOptions
from jaxtrace.cli.options import Arguments, command
from jaxtrace.cli.output import console, say
from jaxtrace.cli.signals import NOTHING_WRITTEN, on_interrupt
from jaxtrace.errors import ConfigError
from jaxtrace.outputs import claim_file
from jaxtrace.settings.groups import OUTPUT, TRACE
from jaxtrace.settings.probes import LENS_OPTIONS
from jaxtrace.settings.run import RunConfig, run_config
from jaxtrace.settings.validation import StrictModel

RECORDED = ("probes", "layer_stride", *LENS_OPTIONS, "residuals", "top_tokens", "top_k_mass", "attention_rows")
RECORDED += ("experts", "step_metrics", "alphas", "precision")


class ReportOptions(StrictModel):
    """Options of `jaxtrace report`."""

    trace: str = Field(
        description="Directory or URL of a trace.",
        json_schema_extra=TRACE,
    )
    out: Path | None = Field(
        None, description="Page to write. Default: TRACE/report.html, which is replaced.", json_schema_extra=OUTPUT
    )
    confidence: Path | None = Field(
        None,
        description="Directory that `jaxtrace confidence train` wrote; its scores colour the text.",
        json_schema_extra={"exists": "name a directory that `jaxtrace confidence train` wrote"},
    )


@command("report", ReportOptions, OverwriteOptions, example="jaxtrace report runs/demo --out report.html")
def report(arguments: Arguments) -> None:
    """Write one self-contained HTML page of a trace."""
    options = arguments.settings(ReportOptions)
    on_interrupt(lambda: NOTHING_WRITTEN)
    from jaxtrace.figures import write_report
    from jaxtrace.traces import open_trace
    from jaxtrace.traces.location import Location

    if options.out is None and not Location.of(options.trace).local:
        raise ConfigError(f"{options.trace}: not on this machine's disk; name the page with --out")
    page = options.out or Path(options.trace) / "report.html"
    claim_file(page, overwrite=options.out is None or arguments.settings(OverwriteOptions).overwrite)
    trace, confidence = open_trace(options.trace), None
    if options.confidence is not None:
        from jaxtrace.studies.confidence.files import load

        confidence = load(options.confidence).answer_confidences(trace)
    say(write_report(trace, page, confidence))


class ModelsOptions(StrictModel):
    """Options of `jaxtrace models`."""

    family: str = Field("", description="Family, or part of a name.", json_schema_extra={"positional": "FAMILY"})


@command("models", ModelsOptions, example="jaxtrace models llama")
def models(arguments: Arguments) -> None:
    """List the published models that jaxtrace knows, their shapes and the bytes of a trace per token."""
    family = arguments.settings(ModelsOptions).family
    from jaxtrace.figures.tables.published import models_table

    console.print(models_table(family))


class InfoOptions(StrictModel):
    """Options of `jaxtrace info` besides what a trace records."""

    source: str = Field(
        description="Checkpoint directory, GGUF file, hub id, name that `jaxtrace models` lists, or 'demo'; or "
        "directory or URL of a trace.",
        json_schema_extra={"positional": "MODEL|TRACE"},
    )


@command(
    "info",
    InfoOptions,
    (RunConfig, ("revision", "ignore_config", "batch_size", *RECORDED)),
    example="jaxtrace info demo --probes output,lens",
)
def info(arguments: Arguments) -> None:
    """Describe a checkpoint and what tracing it costs in bytes and time here; or a stored trace and its size."""
    source = arguments.settings(InfoOptions).source
    run = run_config(**arguments.fields(RunConfig), random=True)
    if "://" not in source:
        check_model(source)
    from jaxtrace.figures.tables.checkpoint import checkpoint_table, published_table
    from jaxtrace.figures.tables.stored import stored_table
    from jaxtrace.model import open_model_checkpoint
    from jaxtrace.models.published import find_published
    from jaxtrace.planning.times import Rates
    from jaxtrace.traces import is_trace, open_trace

    if is_trace(source):
        console.print(stored_table(open_trace(source)))
        return
    published = None if run.revision or "/" in source or Path(source).exists() else find_published(source)
    if published is None:
        checkpoint = open_model_checkpoint(source, run.revision, run.ignore_config)
        run.recorded.check(checkpoint.config)
        checkpoint.log_notes()
        console.print(checkpoint_table(checkpoint, run.recorded, run.precision, run.batch_size, Rates.measured()))
    else:
        run.recorded.check(published.config)
        console.print(published_table(published, run.recorded, run.precision, run.batch_size, Rates.measured()))
