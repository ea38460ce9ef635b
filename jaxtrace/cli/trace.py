"""`jaxtrace trace`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from pydantic import Field

from jaxtrace.cli.checks import check_run, task_list
from jaxtrace.cli.options import Arguments, command
from jaxtrace.cli.output import console, say
from jaxtrace.cli.processes import ProcessOptions
from jaxtrace.cli.signals import on_interrupt
from jaxtrace.errors import few
from jaxtrace.settings.groups import OUTPUT
from jaxtrace.settings.run import RunConfig, run_config
from jaxtrace.settings.validation import StrictModel


class TraceOptions(StrictModel):
    """Options of `jaxtrace trace` besides the settings of its run."""

    config: Path | None = Field(None, description="YAML file of settings; options override it.")
    resume: bool = Field(False, description="Continue the run in --out.", json_schema_extra=OUTPUT)
    tensorboard: Path | None = Field(
        None, description="Directory of event files for TensorBoard.", json_schema_extra=OUTPUT
    )
    profile: Path | None = Field(
        None, description="Directory of a JAX profiler trace of a few chunks of steps.", json_schema_extra=OUTPUT
    )


@command(
    "trace",
    RunConfig,
    TraceOptions,
    ProcessOptions,
    example="jaxtrace trace demo --limit 12 --max-new-tokens 32 --out runs/demo",
    notes=task_list,
)
def trace(arguments: Arguments) -> None:
    """Trace a model on prompts: generate (or --score) and record every step."""
    options = arguments.settings(TraceOptions)
    settings = run_config(options.config, **arguments.fields(RunConfig))
    check_run(settings)
    on_interrupt(lambda: f"continue with --resume --out {settings.out}" if settings.out else "run the command again")
    arguments.settings(ProcessOptions).join()
    from jaxtrace.cli.answers import MOST_ANSWERS, answer_text
    from jaxtrace.cli.progress import with_progress
    from jaxtrace.observing.profile import Profile
    from jaxtrace.observing.tensorboard import Board, check_installed
    from jaxtrace.parallel.processes import is_leader, process_number
    from jaxtrace.run import prepare
    from jaxtrace.traces.location import Location

    if options.tensorboard:
        check_installed()
    run = prepare(settings, resume=options.resume)
    count = f"{{}} of {run.total}" if process_number() is None else "finished"
    kept = f"{count} prompts are kept in {run.directory}; continue with --resume --out {run.directory}"
    on_interrupt(lambda: kept.format(run.stored))
    say(run.headline)
    from jaxtrace import figures  # half a second, in which threads compile

    board = options.tensorboard and Board(options.tensorboard, run.layers)
    profile = options.profile and Profile(options.profile)
    with board or nullcontext(), profile or nullcontext():
        trace = with_progress(run, run.compiled, board=board, profile=profile)
    if not is_leader():
        return
    if profile and not profile.done:
        console.print("--profile: the run ended before there was a chunk of steps to profile", style="red")
    local = Location.of(run.directory).local
    if local:
        figures.write_plots(trace.to_xarray(), run.directory)
    if not settings.score and len(trace.rows) <= MOST_ANSWERS:
        for row in trace.rows:
            console.print(answer_text(row, console.encoding), soft_wrap=True)
    console.print(figures.summary_table(trace))
    console.print(str(run.compiled))
    if broken := [row.prompt.id or str(i) for i, row in enumerate(trace.rows) if row.stop == "not_finite"]:
        count = f"{len(broken)} of {len(trace.rows)} prompts"
        say(f"logits are not finite, and recorded as NaN, in {count}: {few(broken)}", "red")
    console.print(f"{run.directory}: tokens, layers, prompts (Parquet), run.json{', plots' * local}")
    page = "" if local else " --out report.html"
    console.print(f"jaxtrace report {run.directory}{page}  makes the page")
