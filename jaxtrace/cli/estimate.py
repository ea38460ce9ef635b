"""`jaxtrace estimate`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from jaxtrace.cli.comparisons import ComparisonOptions, JudgedProgress, open_comparers
from jaxtrace.cli.estimator_inputs import EstimatorInputs, load_inputs
from jaxtrace.cli.existing import OverwriteOptions
from jaxtrace.cli.options import Arguments, command
from jaxtrace.cli.output import console, say
from jaxtrace.cli.signals import NOTHING_WRITTEN, on_interrupt
from jaxtrace.files import atomic_file
from jaxtrace.outputs import claim_file
from jaxtrace.settings.groups import OUTPUT, READABLE, TRACE
from jaxtrace.settings.numbers import Seed
from jaxtrace.settings.validation import COMMA_SEPARATED, StrictModel
from jaxtrace.studies._shared.settings import Resamples

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


class EstimateOptions(StrictModel):
    """Options of `jaxtrace estimate` besides the inputs of estimators."""

    trace: str = Field(description="Directory or URL of a trace, or of a sweep's dataset.", json_schema_extra=TRACE)
    estimators: Annotated[tuple[str, ...], COMMA_SEPARATED] = Field(
        ("all",),
        min_length=1,
        description="Names of estimators with commas, or all: those whose metrics and inputs are present.",
    )
    labels: Path | None = Field(
        None,
        description="File of `jaxtrace grade`, or .csv or .jsonl of prompt (id) and label. Default: rules on strings.",
        json_schema_extra=READABLE,
    )
    resamples: Resamples = Field(1000, description="Number of resamples of prompts for the evaluation's intervals.")
    seed: Seed = Field(0, description="Seed of the resamples, and of the folds of the calibration error.")
    out: Path = Field(
        description="Parquet file of the scores, or .csv. With labels, NAME.evaluation.csv is written beside it.",
        json_schema_extra=OUTPUT,
    )


@command(
    "estimate",
    EstimateOptions,
    EstimatorInputs,
    ComparisonOptions,
    OverwriteOptions,
    example="jaxtrace estimate runs/demo --estimators all --out scores.parquet",
)
def estimate(arguments: Arguments) -> None:
    """Score each answer of a trace by estimators of uncertainty, and evaluate them where labels are known."""
    options, compared = arguments.settings(EstimateOptions), arguments.settings(ComparisonOptions)
    replies = f"replies are kept in {compared.replies(options.out)}; run the same command again to resume"
    on_interrupt(lambda: replies if compared.asks_judge else NOTHING_WRITTEN)
    evaluation = options.out.with_suffix(".evaluation.csv")
    claim_file(options.out, evaluation, overwrite=arguments.settings(OverwriteOptions).overwrite)
    from jaxtrace import estimators
    from jaxtrace.cli.progress import counter
    from jaxtrace.estimators.evaluation import has_classes, require_classes
    from jaxtrace.estimators.registry import find_estimators, is_every
    from jaxtrace.estimators.table import score_columns
    from jaxtrace.grading.labels import labels_for, right_or_wrong
    from jaxtrace.traces import open_trace
    from jaxtrace.traces.requirements import require_generated, require_rows

    chosen, trace = find_estimators(options.estimators), open_trace(options.trace)
    require_rows({options.trace: trace})
    require_generated(options.trace, trace)
    labels = right_or_wrong(labels_for(trace.rows, options.labels))
    if options.labels is not None:
        require_classes(labels, str(options.labels))
    wanted = {name for each in chosen for name in each.inputs}
    with counter("estimating", "estimators") as show:
        progress = JudgedProgress(show)
        with open_comparers(compared, wanted, options.out, progress.on_answer) as comparers:
            given, every = arguments.settings(EstimatorInputs), is_every(options.estimators)
            inputs = comparers | load_inputs(given, wanted, trace, every=every)
            if has_classes(labels):
                inputs["labels"] = labels
            scores = estimators.estimate(trace, options.estimators, on_count=progress.on_count, **inputs)
    measured = None
    if has_classes(labels):
        settings = {"resamples": options.resamples, "seed": options.seed}
        with counter("evaluating", "estimators") as show:
            measured = estimators.evaluate(scores, labels, on_count=show, **settings)
    _write({options.out: scores, evaluation: measured})
    on_interrupt(lambda: f"{options.out} is complete")
    if measured is not None:
        console.print(_evaluation_table(measured))
    for names, what in _lacking(scores.attrs["lacking"]).items():
        console.print(f"not computed: {names}: {what}")
    say(f"{options.out}: {len(scores)} answers, {len(score_columns(scores))} estimators")
    if measured is not None:
        say(evaluation)


def _write(frames: Mapping[Path, pd.DataFrame | None]) -> None:
    """Write tables, all or none; an older file of a table that is None is deleted."""
    from jaxtrace.studies._shared.csv import write_csv

    with ExitStack() as stack:
        for path, frame in frames.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if frame is None:
                path.unlink(missing_ok=True)
            elif path.suffix.lower() == ".csv":
                write_csv(frame, stack.enter_context(atomic_file(path)))
            else:
                file = stack.enter_context(atomic_file(path))
                frame.to_parquet(file, index=False)


def _lacking(lacking: Mapping[str, str]) -> dict[str, str]:
    """Return what estimators lack, by the names of those that lack the same."""
    names = defaultdict(list)
    for name, message in lacking.items():
        names[message.removeprefix(f"{name}: ")].append(name)
    return {", ".join(each): message for message, each in names.items()}


def _evaluation_table(measured: pd.DataFrame) -> Table:
    """Return the measures that fit 80 columns; the file has all of them, each with its interval."""
    from rich.table import Table

    from jaxtrace.figures.tables.parts import plain
    from jaxtrace.statistics.intervals import FEW_NOTE

    table = Table(box=None, pad_edge=False, collapse_padding=True, title_justify="left", caption_justify="left")
    table.title = f"{measured['n'].max()} answers with a label, {measured['groups'].max()} prompts"
    table.add_column("estimator", overflow="fold", max_width=28)
    for heading in ("AUROC", "PRR", "risk", "ECE", "n", "passes"):
        table.add_column(heading, justify="left" if heading == "passes" else "right", no_wrap=True)
    for row in measured.to_dict("records"):
        interval = f"{_short(row['auroc'])} [{_short(row['auroc_low'])}, {_short(row['auroc_high'])}]"
        cells = (_short(row[name]) for name in ("prr", "risk", "ece"))
        table.add_row(plain(row["estimator"]), interval + "*" * row["auroc_few"], *cells, str(row["n"]), row["passes"])
    table.caption = FEW_NOTE if measured["auroc_few"].any() else None
    return table


def _short(value: float) -> str:
    """Return a number in few columns: .712, -.03, 1.000, – for NaN."""
    text = f"{value:.3f}"
    return "–" if math.isnan(value) else text.replace("0.", ".", 1) if abs(value) < 1 else text
