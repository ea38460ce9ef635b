"""`jaxtrace sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxtrace.cli.app import (
    Coordinator,
    Distributed,
    Option,
    Process,
    Processes,
    app,
    console,
    errors,
    fail,
    join,
    verb,
)


@app.command()
@verb
def sweep(
    file: Annotated[Path, typer.Argument(help="YAML of models, tasks, samplers, seeds, probes and settings.")],
    out: Annotated[
        str | None, Option(help="Directory or URL of the dataset. Default: sweeps/NAME of the file.")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Check, and say what it comes to; run nothing.")] = False,
    mesh: Annotated[str | None, Option(help="Devices, in place of the file's: data=1,model=8.")] = None,
    bandwidth: Annotated[
        float | None, Option(help="With --dry-run: GB/s of a device's memory. Default: measured here.", min=1e-3)
    ] = None,
    tflops: Annotated[
        float | None, Option(help="With --dry-run: TFLOP/s of a device. Default: measured here.", min=1e-6)
    ] = None,
    distributed: Distributed = False,
    coordinator: Coordinator = None,
    processes: Processes = None,
    process: Process = None,
) -> None:
    """Run every model on every task in every setting; run it again to go on where it was."""
    join(distributed, coordinator, processes, process)
    from jaxtrace.sweeping import Machine, estimate_sweep, open_sweep, read_sweep

    cells, root = read_sweep(file, mesh), out or f"sweeps/{file.stem}"
    if dry_run:
        from jaxtrace.figures.sweep import sweep_table

        machine = Machine.of(bandwidth, tflops)
        console.print(sweep_table(estimate_sweep(cells, root, machine), machine))
        return
    from jaxtrace.figures.progress import Progress

    try:
        with Progress(console, errors, len(cells)) as progress:
            opened = open_sweep(cells, root, progress)
            opened.run(progress)
    except KeyboardInterrupt:
        fail(f"interrupted; what is finished is kept in {root}; run the same command again to go on", 130)
    for place in opened.manifest.others(cells):
        progress.say(f"{place}: is not of this sweep file, and left as it is")
    if failed := sum(opened.manifest.of(cell).state == "failed" for cell in cells):
        fail(f"{failed} of {len(cells)} cells failed; the same command tries them again", 1)
    progress.say(f"{root}: complete, {len(cells)} cell{'s' * (len(cells) != 1)}")
