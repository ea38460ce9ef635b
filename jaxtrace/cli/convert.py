"""`jaxtrace convert`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from jaxtrace.cli.checks import check_model
from jaxtrace.cli.existing import ResumeOptions
from jaxtrace.cli.options import Arguments, command
from jaxtrace.cli.output import errors, say
from jaxtrace.cli.signals import on_interrupt
from jaxtrace.settings.groups import DEVICES, MODEL, OUTPUT
from jaxtrace.settings.run import RunConfig
from jaxtrace.settings.validation import StrictModel


class ConvertOptions(StrictModel):
    """Options of `jaxtrace convert`."""

    model: str = Field(
        description="Checkpoint directory, GGUF file, hub id, or 'demo'.",
        json_schema_extra=MODEL | {"positional": "MODEL"},
    )
    out: Path = Field(
        description="New directory, or the directory of the same conversion, interrupted.",
        json_schema_extra=OUTPUT | {"positional": "OUT"},
    )
    dtype: str | None = Field(
        None, description="float32, bfloat16 or float16. Default: as stored.", json_schema_extra=OUTPUT
    )
    mesh: str | None = Field(
        None,
        description="Devices to split each layer over during the conversion: data=1,model=8.",
        json_schema_extra=DEVICES,
    )


@command(
    "convert",
    ConvertOptions,
    (RunConfig, ("revision", "ignore_config")),
    ResumeOptions,
    example="jaxtrace convert demo demo-orbax --dtype bfloat16",
)
def convert(arguments: Arguments) -> None:
    """Write a checkpoint as Orbax, which any mesh reads fast; memory never holds the whole model."""
    options, existing = arguments.settings(ConvertOptions), arguments.settings(ResumeOptions)
    check_model(options.model)
    on_interrupt(lambda: "run the same command again to resume")
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

    from jaxtrace.checkpoints.convert import convert as write
    from jaxtrace.model import open_model_checkpoint

    run = arguments.settings(RunConfig)
    checkpoint = open_model_checkpoint(options.model, run.revision, run.ignore_config)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("reading", total=None)

        def on_progress(written: int, total: int) -> None:
            progress.update(bar, description="converting", completed=written, total=total)

        settings = options.model_dump(include={"dtype", "mesh"}) | existing.model_dump()
        write(checkpoint, options.out, **settings, on_progress=on_progress)
    say(f"{options.out}: load it by this name, like any checkpoint")
