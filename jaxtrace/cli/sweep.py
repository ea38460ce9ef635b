"""`jaxtrace sweep`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from jaxtrace.cli.options import Arguments, command
from jaxtrace.cli.output import console, errors, fail
from jaxtrace.cli.processes import ProcessOptions
from jaxtrace.cli.signals import on_interrupt
from jaxtrace.settings.groups import OUTPUT
from jaxtrace.settings.numbers import Float
from jaxtrace.settings.run import RunConfig
from jaxtrace.settings.validation import StrictModel


class SweepOptions(StrictModel):
    """Options of `jaxtrace sweep`."""

    file: Path = Field(
        description="YAML file of models, revisions, tasks, samplers, seeds, probes and settings.",
        json_schema_extra={"positional": "FILE", "exists": "give a YAML file of settings"},
    )
    out: str | None = Field(
        None, description="Directory or URL of the dataset. Default: sweeps/NAME of the file.", json_schema_extra=OUTPUT
    )
    dry_run: bool = Field(False, description="Check the sweep and estimate its cost; run nothing.")
    bandwidth: Float | None = Field(
        None, ge=1e-3, le=1e9, description="GB/s of a device's memory, with --dry-run. Default: measured here."
    )
    tflops: Float | None = Field(
        None, ge=1e-6, le=1e9, description="TFLOP/s of a device, with --dry-run. Default: measured here."
    )


@command(
    "sweep",
    SweepOptions,
    (RunConfig, ("mesh",)),
    ProcessOptions,
    example="jaxtrace sweep configs/sweeps/demo.yaml --dry-run",
)
def sweep(arguments: Arguments) -> None:
    """Run every model on every task in every setting; run the command again to resume."""
    options = arguments.settings(SweepOptions)
    on_interrupt(lambda: "run the same command again")
    arguments.settings(ProcessOptions).join()
    from jaxtrace.sweeping import Machine, estimate_sweep, open_sweep, read_sweep

    cells = read_sweep(options.file, **arguments.fields(RunConfig))
    root = options.out or f"sweeps/{options.file.stem}"
    if options.dry_run:
        from jaxtrace.figures.tables.sweep import sweep_table

        machine = Machine.of(options.bandwidth, options.tflops)
        console.print(sweep_table(estimate_sweep(cells, root, machine), machine))
        return
    from jaxtrace.figures.sweep_progress import SweepProgress

    with SweepProgress(console, errors, len(cells)) as progress:
        opened = open_sweep(cells, root, progress)

        def advice() -> str:
            complete = sum(opened.manifest.of(cell).state == "complete" for cell in cells)
            return (
                f"{complete} of {len(cells)} cells are complete; finished work is kept in {root}; "
                "run the same command again to resume"
            )

        on_interrupt(advice)
        opened.run(progress)
    for place in opened.manifest.others(cells):
        progress.say(f"{place}: not in this sweep file, and left unchanged")
    if failed := sum(opened.manifest.of(cell).state == "failed" for cell in cells):
        fail(f"{failed} of {len(cells)} cells failed; run the same command again to retry them", 1)
    progress.say(f"{root}: complete, {len(cells)} cell{'s' * (len(cells) != 1)}")
