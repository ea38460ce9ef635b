"""`jaxtrace convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxtrace.cli.app import Option, app, console, errors, fail, verb


@app.command()
@verb
def convert(
    model: Annotated[str, typer.Argument(help="Checkpoint directory, hub id, or 'demo'.")],
    out: Annotated[Path, typer.Argument(help="A new directory, or that of the same conversion, interrupted.")],
    dtype: Annotated[str | None, Option(help="float32, bfloat16 or float16. Default: as stored.")] = None,
    mesh: Annotated[
        str | None, Option(help="Devices to split each layer over while it is written: data=1,model=8.")
    ] = None,
) -> None:
    """Write a checkpoint as Orbax, which any mesh reads fast; never the whole model in memory."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

    from jaxtrace.checkpoints.convert import convert as write
    from jaxtrace.model import open_model_checkpoint

    checkpoint = open_model_checkpoint(model)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    try:
        with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
            bar = progress.add_task("reading", total=None)

            def on_progress(written: int, total: int) -> None:
                progress.update(bar, description="converting", completed=written, total=total)

            write(checkpoint, out, dtype=dtype, mesh=mesh, on_progress=on_progress)
    except KeyboardInterrupt:
        fail("interrupted; run the same command again to go on", 130)
    console.print(f"{out}: load it by this name, as any checkpoint", markup=False, highlight=False, soft_wrap=True)
