"""`jaxtrace confidence train` and `apply`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from jaxtrace.cli.existing import OverwriteOptions
from jaxtrace.cli.options import Arguments, command
from jaxtrace.cli.output import console, say
from jaxtrace.cli.signals import NOTHING_WRITTEN, incomplete, on_interrupt
from jaxtrace.files import atomic_file
from jaxtrace.outputs import claim_directory
from jaxtrace.settings.groups import OUTPUT, READABLE, TRACE
from jaxtrace.settings.validation import StrictModel
from jaxtrace.studies._shared.settings import FILES, PAGE
from jaxtrace.studies.confidence.settings import ConfidenceConfig

if TYPE_CHECKING:
    pass

# Columns of the terminal; the CSV file has all.
ESTIMATES = [f"{name}{end}" for name in ("auroc", "auroc_gain") for end in ("", "_low", "_high", "_few")]
SCORE_COLUMNS = ["score", *ESTIMATES, "ece", "n", "groups"]


class ConfidenceTrainOptions(StrictModel):
    """Options of `jaxtrace confidence train` besides the training's settings."""

    traces: tuple[str, ...] = Field(min_length=1, description="Directories or URLs of traces.", json_schema_extra=TRACE)
    labels: Path | None = Field(
        None,
        description="File of `jaxtrace grade`, or .csv or .jsonl of prompt (id) and label. Default: rules on strings.",
        json_schema_extra=READABLE,
    )
    out: Path = Field(
        description="Directory of the confidence, its tables, pictures and page.", json_schema_extra=OUTPUT
    )


@command(
    "confidence train",
    ConfidenceTrainOptions,
    ConfidenceConfig,
    OverwriteOptions,
    example="jaxtrace confidence train runs/demo --labels runs/demo-labels.jsonl --out confidence",
)
def train_confidence(arguments: Arguments) -> None:
    """Learn to tell right answers from wrong ones, and compare that with scores that need no learning."""
    options, config = arguments.settings(ConfidenceTrainOptions), arguments.settings(ConfidenceConfig)
    on_interrupt(lambda: NOTHING_WRITTEN)
    own = ("confidence.json", "confidence.safetensors", *FILES)
    from jaxtrace.lock import WriteLock

    with WriteLock(options.out):
        claim_directory(options.out, PAGE, own, overwrite=arguments.settings(OverwriteOptions).overwrite)
        from jaxtrace.studies._shared.page import terminal_table, write_study
        from jaxtrace.studies.confidence.compute import train
        from jaxtrace.studies.confidence.files import save
        from jaxtrace.traces import open_trace

        traces = {place: open_trace(place) for place in options.traces}
        confidence, result = train(traces, options.labels, config)
        labels = options.labels and str(options.labels)
        on_interrupt(lambda: incomplete(options.out))
        save(confidence, options.out, {"traces": [*traces], "labels": labels, **config.model_dump()})
        page = write_study(result, options.out)
        on_interrupt(lambda: f"{options.out} is complete")
    for name in ("answers", "tokens"):
        table = result.tables[name]
        console.print(terminal_table(name, replace(table, frame=table.frame[SCORE_COLUMNS]), console.width))
    for note in result.notes:
        console.print(note)
    say(page)


class ConfidenceApplyOptions(StrictModel):
    """Options of `jaxtrace confidence apply`."""

    confidence: Path = Field(
        description="Directory that `jaxtrace confidence train` wrote.", json_schema_extra={"positional": "CONFIDENCE"}
    )
    trace: str = Field(description="Directory or URL of a trace.", json_schema_extra=TRACE)
    out: Path = Field(description="Directory of answers.parquet and tokens.parquet.", json_schema_extra=OUTPUT)


@command(
    "confidence apply",
    ConfidenceApplyOptions,
    OverwriteOptions,
    example="jaxtrace confidence apply confidence runs/demo --out scores",
)
def apply_confidence(arguments: Arguments) -> None:
    """Write the confidence in each answer of a trace and in each of its tokens."""
    options = arguments.settings(ConfidenceApplyOptions)
    on_interrupt(lambda: NOTHING_WRITTEN)
    overwrite = arguments.settings(OverwriteOptions).overwrite
    from jaxtrace.lock import WriteLock

    with WriteLock(options.out):
        claim_directory(options.out, "tokens.parquet", ["answers.parquet"], overwrite=overwrite)
        from jaxtrace.studies.confidence.files import load
        from jaxtrace.traces import open_trace

        answers, tokens = load(options.confidence).apply(open_trace(options.trace))
        on_interrupt(lambda: incomplete(options.out))
        for name, frame in (("answers", answers), ("tokens", tokens)):
            with atomic_file(options.out / f"{name}.parquet") as file:
                frame.to_parquet(file, index=False)
    on_interrupt(lambda: f"{options.out} is complete")
    scores = answers["confidence"]
    console.print(
        f"{len(answers)} answers, {len(tokens)} tokens; confidence of answers: mean {scores.mean():.3f}, "
        f"median {scores.median():.3f}, {scores.min():.3f} to {scores.max():.3f}",
    )
    console.print(
        f"{answers['out_of_range'].mean():.1%} of their features are out of the training's range; if that is more than "
        "a few per cent, the confidence means nothing",
    )
    say(f"{options.out}: answers.parquet, tokens.parquet")
