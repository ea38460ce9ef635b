"""`jaxtrace trace`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from jaxtrace.cli.app import Option, app, console, errors, fail, verb
from jaxtrace.tasks import TASKS

TASK_HELP = "; ".join(f"{name}: {task.text}" for name, task in TASKS.items()) + "."


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
    probes: Annotated[
        str | None, Option(help="Groups, comma-separated: output, attention, dispersion, lens, hidden, all, none.")
    ] = None,
    batch_size: Annotated[int | None, Option(help="Prompts run at once. Default: 16.")] = None,
    max_new_tokens: Annotated[int | None, Option(help="Most tokens drawn for a prompt. Default: 64.")] = None,
    stop_repeats: Annotated[int | None, Option(help="So many identical tokens end a row; 0 never. Default: 0.")] = None,
    sampler: Annotated[str | None, Option(help="greedy or sample. Default: greedy.")] = None,
    temperature: Annotated[float | None, Option(help="Default: 1.0.")] = None,
    top_p: Annotated[float | None, Option(help="Default: 1.0.")] = None,
    top_k: Annotated[int | None, Option(help="0 keeps all. Default: 0.")] = None,
    min_p: Annotated[float | None, Option(help="Default: 0.0.")] = None,
    seed: Annotated[int | None, Option(help="Of the sampler, and of all that is random. Default: 0.")] = None,
    random: Annotated[
        bool | None,
        Option("--random", help="Random weights of the model's shape, and random prompts if none are given."),
    ] = None,
    mesh: Annotated[
        str | None, Option(help="Devices: parameters are split over model, rows over data: data=1,model=8.")
    ] = None,
    out: Annotated[Path | None, Option(help="Directory of the trace. Default: runs/MODEL-TIME.")] = None,
    resume: Annotated[bool, Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Trace a model on prompts: generate (or --score) and record every step."""
    given = {name: value for name, value in locals().items() if name not in ("config", "resume")}
    from jaxtrace import report
    from jaxtrace.compilation import counted
    from jaxtrace.run import prepare, run_config

    given["probes"] = None if probes is None else tuple(group.strip() for group in probes.split(","))
    settings = run_config(config, **{name: value for name, value in given.items() if value is not None})
    run = prepare(settings, resume=resume)
    try:
        with counted() as compiled:
            trace = _with_progress(run, compiled)
    except KeyboardInterrupt:
        fail(
            f"interrupted; finished prompts are kept in {run.directory}; go on with --resume --out {run.directory}", 130
        )
    report.write_plots(trace.to_xarray(), run.directory)
    console.print(report.summary_table(trace))
    console.print(str(compiled), highlight=False)
    if bad := [row.prompt.id or str(i) for i, row in enumerate(trace.rows) if row.stop == "not_finite"]:
        names = ", ".join(bad[:5]) + (", …" if len(bad) > 5 else "")
        message = (
            f"logits that are not finite, and NaN in their place, in {len(bad)} of {len(trace.rows)} prompts: {names}"
        )
        console.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{run.directory}: tokens, layers, prompts (Parquet), run.json, plots", markup=False)
    console.print(f"jaxtrace report {run.directory}  makes the page", markup=False, highlight=False)


def _with_progress(run: Any, compiled: Any) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("tracing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("prompts  {task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors) as progress:
        bar = progress.add_task("", total=run.total, completed=run.done, rate="compiling")
        began, tokens, entropy = time.monotonic(), 0, 0.0

        def on_progress(new_prompts: int, new_tokens: int, new_entropy: float) -> None:
            nonlocal tokens, entropy
            tokens, entropy = tokens + new_tokens, entropy + new_entropy
            working = max(time.monotonic() - began - compiled.seconds, 1e-9)
            rate = f"{tokens / working:.0f} tokens/s"
            if tokens and entropy == entropy:
                rate += f"  mean entropy {entropy / tokens:.3f} nats"
            progress.update(bar, advance=new_prompts, rate=rate)

        return run.trace(on_progress)
