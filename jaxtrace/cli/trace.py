"""`jaxtrace trace`."""

from __future__ import annotations

from contextlib import nullcontext
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
    fail,
    join,
    verb,
)
from jaxtrace.cli.probes import (
    AttentionRows,
    LayerStride,
    LensRenyi,
    Precision,
    ProbeGroups,
    PromptPositions,
    Residuals,
    TopTokens,
)
from jaxtrace.cli.progress import with_progress
from jaxtrace.tasks import known_tasks

TASK_HELP = "; ".join(f"{name}: {task.text}" for name, task in known_tasks().items()) + "."


@app.command()
@verb
def trace(
    model: Annotated[
        str | None, typer.Argument(help="Checkpoint directory, hub id, name that `models` lists, or 'demo'.")
    ] = None,
    config: Annotated[Path | None, Option(help="YAML file of settings; options override it.")] = None,
    task: Annotated[str | None, Option(help=TASK_HELP)] = None,
    data: Annotated[Path | None, Option(help="The task's data file; the hub's copy without it.")] = None,
    prompts: Annotated[Path | None, Option(help="Prompt file: .txt, .jsonl, .csv.")] = None,
    text: Annotated[list[str] | None, Option(help="A prompt; may be given several times.")] = None,
    image: Annotated[list[Path] | None, Option(help="An image for each --text, for a model that sees.")] = None,
    limit: Annotated[int | None, Option(help="Trace this many prompts at most.")] = None,
    score: Annotated[bool | None, Option("--score", help="Trace the texts themselves.")] = None,
    raw: Annotated[bool | None, Option("--raw", help="Go without the chat template.")] = None,
    probes: ProbeGroups = None,
    layer_stride: LayerStride = None,
    residuals: Residuals = None,
    top_tokens: TopTokens = None,
    attention_rows: AttentionRows = None,
    prompt_positions: PromptPositions = None,
    lens_renyi: LensRenyi = None,
    lens: Annotated[
        Path | None, Option(help="Directory of a tuned lens of the model. Default: the logit lens.")
    ] = None,
    precision: Precision = None,
    batch_size: Annotated[int | None, Option(help="Prompts run at once. Default: 16.")] = None,
    max_new_tokens: Annotated[int | None, Option(help="Most tokens drawn for a prompt. Default: 64.")] = None,
    stop_repeats: Annotated[int | None, Option(help="So many identical tokens end a row; 0 never. Default: 0.")] = None,
    sampler: Annotated[str | None, Option(help="greedy, sample, entropix or dslider. Default: greedy.")] = None,
    temperature: Annotated[float | None, Option(help="Default: 1.0.")] = None,
    top_p: Annotated[float | None, Option(help="Default: 1.0.")] = None,
    top_k: Annotated[int | None, Option(help="0 keeps all. Default: 0.")] = None,
    min_p: Annotated[float | None, Option(help="Default: 0.0.")] = None,
    thresholds: Annotated[str | None, Option(help="Of entropix: classic or server. Default: classic.")] = None,
    pause: Annotated[
        str | None,
        Option(help="Pause token of entropix and dslider, text or id. Default: ' ...' where it is one token."),
    ] = None,
    seed: Annotated[int | None, Option(help="Of the sampler, and of all that is random. Default: 0.")] = None,
    random: Annotated[
        bool | None,
        Option("--random", help="Random weights of the model's shape, and random prompts if none are given."),
    ] = None,
    mesh: Annotated[
        str | None,
        Option(help="Devices: parameters are split over model, rows over data: data=1,model=8. Default: auto."),
    ] = None,
    out: Annotated[str | None, Option(help="Directory or URL of the trace. Default: runs/MODEL-TIME.")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on with the run in --out.")] = False,
    tensorboard: Annotated[Path | None, Option(help="Directory of event files that TensorBoard shows.")] = None,
    profile: Annotated[Path | None, Option(help="Directory of a JAX profiler trace of a few chunks of steps.")] = None,
    distributed: Distributed = False,
    coordinator: Coordinator = None,
    processes: Processes = None,
    process: Process = None,
) -> None:
    """Trace a model on prompts: generate (or --score) and record every step."""
    arguments = locals()
    join(distributed, coordinator, processes, process)
    from jaxtrace import figures
    from jaxtrace.compilation import counted
    from jaxtrace.observing.profile import Profile
    from jaxtrace.observing.tensorboard import Board, check_installed
    from jaxtrace.parallel.processes import leading
    from jaxtrace.run import RunConfig, prepare, run_config
    from jaxtrace.traces.location import Location

    given = {name: value for name, value in arguments.items() if name in RunConfig.model_fields}
    settings = run_config(config, **{name: value for name, value in given.items() if value is not None})
    if tensorboard:
        check_installed()
    run = prepare(settings, resume=resume)
    board, profiled = tensorboard and Board(tensorboard, run.layers), profile and Profile(profile)
    try:
        with counted() as compiled, board or nullcontext(), profiled or nullcontext():
            trace = with_progress(run, compiled, board=board, profile=profiled)
    except KeyboardInterrupt:
        fail(
            f"interrupted; finished prompts are kept in {run.directory}; go on with --resume --out {run.directory}", 130
        )
    if not leading():
        return
    if profiled and not profiled.done:
        console.print("--profile: the run was over before there was a chunk of steps to profile", style="red")
    local = Location.of(run.directory).local
    if local:
        figures.write_plots(trace.to_xarray(), run.directory)
    console.print(figures.summary_table(trace))
    console.print(str(compiled), highlight=False)
    if bad := [row.prompt.id or str(i) for i, row in enumerate(trace.rows) if row.stop == "not_finite"]:
        names = ", ".join(bad[:5]) + (", …" if len(bad) > 5 else "")
        message = (
            f"logits that are not finite, and NaN in their place, in {len(bad)} of {len(trace.rows)} prompts: {names}"
        )
        console.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{run.directory}: tokens, layers, prompts (Parquet), run.json{', plots' * local}", markup=False)
    page = "" if local else " --out report.html"
    console.print(f"jaxtrace report {run.directory}{page}  makes the page", markup=False, highlight=False)
