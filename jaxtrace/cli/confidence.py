"""`jaxtrace confidence train` and `apply`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from jaxtrace.cli.app import Option, console, verb

if TYPE_CHECKING:
    import pandas as pd

confidence_app = typer.Typer(help="How sure of an answer one may be, learned from traces.", no_args_is_help=True)


@confidence_app.command("train")
@verb
def train_confidence(
    traces: Annotated[list[str], typer.Argument(metavar="TRACE", help="Directories or URLs of traces.")],
    out: Annotated[Path, Option(help="Directory of the confidence, its tables, pictures and page.")],
    labels: Annotated[
        Path | None,
        Option(
            help="What `jaxtrace grade` wrote, or .csv or .jsonl of prompt (id) and label. Default: rules on strings."
        ),
    ] = None,
    keep: Annotated[str | None, Option(help="logistic or mlp: which one to keep. Default: logistic.")] = None,
    hidden: Annotated[int | None, Option(help="Units of the network's hidden layer. Default: 16.")] = None,
    penalty: Annotated[float | None, Option(help="On squared weights, of answers. Default: 0.3.")] = None,
    token_penalty: Annotated[float | None, Option(help="The same of tokens. Default: 0.003.")] = None,
    group: Annotated[
        str | None, Option(help="Key of meta whose prompts stay together. Default: each by itself.")
    ] = None,
    folds: Annotated[int | None, Option(help="Parts of the cross-validation by group. Default: 5.")] = None,
    resamples: Annotated[int | None, Option(help="Of groups, for intervals. Default: 1000.")] = None,
    seed: Annotated[int | None, Option(help="Of all that is drawn at random. Default: 0.")] = None,
) -> None:
    """Learn to tell right answers from wrong ones, and compare that with what needs no learning."""
    arguments = locals()
    from jaxtrace.run import validated
    from jaxtrace.studies._shared.page import write_study
    from jaxtrace.studies.confidence.files import save
    from jaxtrace.studies.confidence.study import ConfidenceConfig, train
    from jaxtrace.traces import open_trace

    given = {name: arguments[name] for name in ConfidenceConfig.model_fields if arguments[name] is not None}
    config = validated(ConfidenceConfig, given, "settings")
    confidence, result = train({place: open_trace(place) for place in traces}, labels, config)
    save(confidence, out, {"traces": traces, "labels": labels and str(labels), **config.model_dump()})
    page = write_study(result, out)
    for name in ("answers", "tokens"):
        console.print(_measured(name, result.tables[name].frame))
    for note in result.notes:
        console.print(note, markup=False, highlight=False)
    console.print(str(page), markup=False, highlight=False, soft_wrap=True)


@confidence_app.command("apply")
@verb
def apply_confidence(
    directory: Annotated[Path, typer.Argument(metavar="CONFIDENCE", help="Directory that `confidence train` wrote.")],
    trace: Annotated[str, typer.Argument(help="Directory or URL of a trace.")],
    out: Annotated[Path, Option(help="Directory of answers.parquet and tokens.parquet.")],
) -> None:
    """Write the confidence in each answer of a trace and in each of its tokens."""
    from jaxtrace.studies.confidence.files import load
    from jaxtrace.traces import open_trace

    answers, tokens = load(directory).apply(open_trace(trace))
    out.mkdir(parents=True, exist_ok=True)
    for name, frame in (("answers", answers), ("tokens", tokens)):
        frame.to_parquet(out / f"{name}.parquet", index=False)
    found = answers["confidence"]
    console.print(
        f"{len(answers)} answers, {len(tokens)} tokens; confidence of answers: mean {found.mean():.3f}, "
        f"median {found.median():.3f}, {found.min():.3f} to {found.max():.3f}",
        highlight=False,
    )
    console.print(
        f"{answers['unlike'].mean():.1%} of their features are far from those of the training; where that is more than "
        "a few, the confidence means nothing",
        highlight=False,
    )
    console.print(f"{out}: answers.parquet, tokens.parquet", markup=False, highlight=False, soft_wrap=True)


def _measured(name: str, frame: pd.DataFrame) -> Table:
    """The measures that fit a terminal, each with its interval."""
    intervals = {"auroc": "AUROC", "auroc_gain": "over entropy's"}
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.title = f"\n{name}: {frame['n'][0]}, in {frame['groups'][0]} groups"
    table.add_column("score", no_wrap=True)
    for heading in (*intervals.values(), "ECE"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in frame.to_dict("records"):
        cells = [f"{row[x]:.3f} [{row[f'{x}_low']:.3f}, {row[f'{x}_high']:.3f}]" for x in intervals]
        table.add_row(row["score"], *cells, f"{row['ece']:.3f}")
    return table
