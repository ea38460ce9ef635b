"""The command line: verbs, each of which calls the library."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from jaxtrace.errors import JaxtraceError
from jaxtrace.kernels import Unsupported
from jaxtrace.tasks import TASKS

app = typer.Typer(
    help="A language model's own uncertainty: entropy and varentropy of every step, head and layer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()
errors = Console(stderr=True)


def _verb(function: Callable[..., None]) -> Callable[..., None]:
    """Turns what a user can mend into one line and exit status 2, and Ctrl-C into 130."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except (JaxtraceError, Unsupported) as error:
            _fail(str(error), 2)
        except BrokenPipeError:
            raise  # the reader of our output has enough; typer ends quietly
        except OSError as error:
            _fail(f"{error.filename or 'a file'}: {error.strerror or error}; mend it, or name another place", 2)
        except KeyboardInterrupt:
            _fail("interrupted", 130)

    return run


def _fail(message: str, status: int) -> None:
    errors.print(f"jaxtrace: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(status)


Option = functools.partial(typer.Option, show_default=False)
TASK_HELP = "; ".join(f"{name}: {task.text}" for name, task in TASKS.items()) + "."


@app.command()
@_verb
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
        _fail(
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


@app.command()
@_verb
def report(
    directory: Annotated[Path, typer.Argument(help="Directory of a trace.")],
    out: Annotated[Path | None, Option(help="The page. Default: DIRECTORY/report.html.")] = None,
) -> None:
    """Write one self-contained HTML page of a trace."""
    from jaxtrace.report import write_report
    from jaxtrace.store import open_trace

    page = write_report(open_trace(directory), out or directory / "report.html")
    console.print(str(page), markup=False, highlight=False, soft_wrap=True)


@app.command()
@_verb
def models(wanted: Annotated[str, typer.Argument(metavar="FAMILY", help="Family, or part of a name.")] = "") -> None:
    """List the published models that jaxtrace knows, their shapes and what a trace of them costs per token."""
    from jaxtrace.report.published import models_table

    console.print(models_table(wanted))


@app.command()
@_verb
def info(
    model: Annotated[str, typer.Argument(help="Checkpoint directory, hub id, name that `models` lists, or 'demo'.")],
) -> None:
    """Say what a checkpoint is, and what a trace of it costs per token."""
    from jaxtrace.models.published import find_published
    from jaxtrace.report.checkpoint import checkpoint_table, published_table
    from jaxtrace.tracing.model import open_model_checkpoint

    published = None if "/" in model or Path(model).exists() else find_published(model)
    console.print(checkpoint_table(open_model_checkpoint(model)) if published is None else published_table(published))


@app.command()
@_verb
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
    from jaxtrace.tracing.model import open_model_checkpoint

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
        _fail("interrupted; run the same command again to go on", 130)
    console.print(f"{out}: load it by this name, as any checkpoint", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the `jaxtrace` command."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # its tokenizers need no PyTorch
    app(prog_name="jaxtrace")


if __name__ == "__main__":
    sys.exit(main())
