"""`jaxtrace study lens`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from jaxtrace.cli.app import Option, verb
from jaxtrace.cli.study.common import (
    Config,
    Data,
    Limit,
    MaxNewTokens,
    Models,
    Out,
    Task,
    Traces,
    configured,
    studied,
    study_app,
    traced,
)


@study_app.command()
@verb
def lens(
    traces: Traces = None,
    by: Annotated[
        str | None,
        Option(
            help="What to tell apart: family, task, format, correctness, or any key of prompts or run. Default: task."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        Option(
            help="A metric of layers; may be given several times. lens_renyi[2] is of order 2. Default: lens_entropy."
        ),
    ] = None,
    windows: Annotated[
        str | None, Option(help="Runs of steps that are averaged each; 'each' for every step. Default: 1, the mean.")
    ] = None,
    steps: Annotated[int | None, Option(help="Use the first so many steps; shorter answers are left out.")] = None,
    points: Annotated[int | None, Option(help="Depths to read models of several depths off at. Default: 64.")] = None,
    zero_padding: Annotated[
        bool | None, Option("--zero-padding", help="Pad these with zeros too, as published: tells a model's depth.")
    ] = None,
    group: Annotated[
        str | None,
        Option(help="Key of meta whose prompts stay together. Default: story, topic, question, or the prompt."),
    ] = None,
    neighbours: Annotated[
        list[int] | None, Option(help="How many neighbours; may be given several times. Default: 3, 5, 11, 29.")
    ] = None,
    folds: Annotated[int | None, Option(help="Default: 10.")] = None,
    labels: Annotated[Path | None, Option(help="File of grades, for correctness.")] = None,
    letter_anywhere: Annotated[
        bool | None, Option("--letter-anywhere", help="Grade MMLU by its letter anywhere, as published.")
    ] = None,
    config: Config = None,
    models: Models = None,
    task: Task = None,
    data: Data = None,
    limit: Limit = None,
    max_new_tokens: MaxNewTokens = None,
    seed: Annotated[int | None, Option(help="Of all that is drawn at random. Default: 42.")] = None,
    out: Out = Path("studies/lens"),
) -> None:
    """Tell kinds of answers, or models, apart by how a metric goes through the layers (Entropy-Lens)."""
    given = locals()
    from jaxtrace.studies.lens.compute import LensConfig
    from jaxtrace.studies.lens.compute import lens as study

    settings = configured(LensConfig, config, given)
    studied(study(traced(settings, out), settings), out)
