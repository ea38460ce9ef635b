"""`jaxtrace study patterns`."""

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
    Seed,
    Task,
    Traces,
    configured,
    studied,
    study_app,
    traced,
)

BY_HELP = (
    "What is compared: a key of the prompts' meta; grade (correct and not attempted against incorrect), correctness "
    "(correct against incorrect), or wrong_step (tokens of the first wrong step against the rest). Default: condition."
)


@study_app.command()
@verb
def patterns(
    traces: Traces = None,
    config: Config = None,
    models: Models = None,
    task: Task = None,
    data: Data = None,
    limit: Limit = None,
    max_new_tokens: MaxNewTokens = None,
    seed: Seed = None,
    by: Annotated[str | None, Option(help=BY_HELP)] = None,
    conditions: Annotated[list[str] | None, Option("--condition", help="One that is compared; all without it.")] = None,
    labels: Annotated[Path | None, Option(help="A file that `jaxtrace grade` wrote.")] = None,
    resamples: Annotated[int | None, Option(help="Of intervals and permutation tests. Default: 2000.")] = None,
    out: Out = Path("studies/patterns"),
) -> None:
    """Attention entropy by condition: factual or creative, right or wrong, and where an answer went wrong."""
    arguments = locals()
    from jaxtrace.studies.patterns.compute import PatternsConfig
    from jaxtrace.studies.patterns.compute import patterns as study

    settings = configured(PatternsConfig, config, arguments)
    studied(study(traced(settings, out), settings), out)
