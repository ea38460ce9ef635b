"""Verbs that show what is there: `report`, `models`, `info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxtrace.cli.app import Option, app, console, verb
from jaxtrace.cli.probes import AttentionRows, LayerStride, LensRenyi, Precision, ProbeGroups, Residuals, TopTokens
from jaxtrace.errors import ConfigError


@app.command()
@verb
def report(
    directory: Annotated[str, typer.Argument(help="Directory or URL of a trace.")],
    out: Annotated[Path | None, Option(help="The page. Default: DIRECTORY/report.html.")] = None,
    confidence: Annotated[
        Path | None, Option(help="Directory that `confidence train` wrote; its score is the text's colour.")
    ] = None,
) -> None:
    """Write one self-contained HTML page of a trace."""
    from jaxtrace.figures import write_report
    from jaxtrace.traces import open_trace
    from jaxtrace.traces.location import Location

    if out is None and not Location.of(directory).local:
        raise ConfigError(f"{directory}: is not on this machine's disk; name the page with --out")
    trace, sure = open_trace(directory), None
    if confidence is not None:
        from jaxtrace.studies.confidence import load

        sure = load(confidence).of_rows(trace)
    page = write_report(trace, out or Path(directory) / "report.html", sure)
    console.print(str(page), markup=False, highlight=False, soft_wrap=True)


@app.command()
@verb
def models(wanted: Annotated[str, typer.Argument(metavar="FAMILY", help="Family, or part of a name.")] = "") -> None:
    """List the published models that jaxtrace knows, their shapes and what a trace of them costs per token."""
    from jaxtrace.figures.published import models_table

    console.print(models_table(wanted))


@app.command()
@verb
def info(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|TRACE",
            help="Checkpoint directory, hub id, name that `models` lists, or 'demo'; or directory or URL of a trace.",
        ),
    ],
    probes: ProbeGroups = None,
    layer_stride: LayerStride = None,
    residuals: Residuals = None,
    top_tokens: TopTokens = None,
    attention_rows: AttentionRows = None,
    lens_renyi: LensRenyi = None,
    precision: Precision = None,
) -> None:
    """Say what a checkpoint is, and what a trace of it costs per token; or what a trace is, and what it costs."""
    chosen = {name: value for name, value in locals().items() if value is not None}
    from jaxtrace.figures.checkpoint import checkpoint_table, published_table
    from jaxtrace.figures.stored import stored_table
    from jaxtrace.model import open_model_checkpoint
    from jaxtrace.models.published import find_published
    from jaxtrace.run import run_config
    from jaxtrace.traces import is_trace, open_trace

    if is_trace(model):
        console.print(stored_table(open_trace(model)))
        return
    settings = run_config(**chosen, random=True)
    recorded = settings.recorded, settings.precision
    published = None if "/" in model or Path(model).exists() else find_published(model)
    if published is None:
        console.print(checkpoint_table(open_model_checkpoint(model), *recorded))
    else:
        console.print(published_table(published, *recorded))
