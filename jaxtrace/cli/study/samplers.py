"""`jaxtrace study samplers`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from jaxtrace.cli.app import Option, verb
from jaxtrace.cli.progress import counter
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


@study_app.command()
@verb
def samplers(
    traces: Traces = None,
    config: Config = None,
    models: Models = None,
    task: Task = None,
    data: Data = None,
    limit: Limit = None,
    max_new_tokens: MaxNewTokens = None,
    samplers: Annotated[
        list[str] | None,
        Option("--sampler", help="May be given several times; the first is compared with. Default: all four."),
    ] = None,
    seeds: Annotated[
        list[int] | None, Option("--draws", help="A seed of the draws; may be given several times. Default: 0, 1, 2.")
    ] = None,
    seed: Seed = None,
    out: Out = Path("studies/samplers"),
) -> None:
    """Compare samplers on the same prompts: accuracy, entropy, length, quadrants, cost (Entropix)."""
    given = locals()
    from jaxtrace.errors import ConfigError
    from jaxtrace.studies._shared.models import loaded
    from jaxtrace.studies.samplers.answers import SamplersConfig, run_samplers, runs_of
    from jaxtrace.studies.samplers.compute import samplers as study

    settings = configured(SamplersConfig, config, given)
    if settings.traces:
        if samplers or seeds:
            raise ConfigError(
                "--sampler and --draws are of runs that are to be made; leave them out, or name a --model"
            )
        return studied(study(runs_of(traced(settings, out)), settings), out)
    runs = {}
    for label, model, run in loaded(settings):
        with counter(label, "runs") as bar:
            runs[label] = run_samplers(model, run, settings, bar)
    studied(study(runs, settings), out)
