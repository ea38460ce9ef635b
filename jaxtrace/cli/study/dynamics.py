"""`jaxtrace study dynamics`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from jaxtrace.cli.app import Option, console, verb
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

LONG_HELP = "Write the table of every phase, step and layer, long/MODEL.parquet (or csv)."
TWICE_HELP = "In runs, feed the last prompt token twice, as the paper's Algorithm 1 does; prompts are measured too."
CHOICES_HELP = "Score true and false answers: mc_task.json, a .parquet, a .csv as TruthfulQA's, or 'hub'."


@study_app.command()
@verb
def dynamics(
    traces: Traces = None,
    config: Config = None,
    models: Models = None,
    task: Task = None,
    data: Data = None,
    limit: Limit = None,
    max_new_tokens: MaxNewTokens = None,
    seed: Seed = None,
    hdi: Annotated[str | None, Option(help="std, var, cv, fano, range or jsd. Default: std.")] = None,
    tau: Annotated[float | None, Option(help="Nats of drift that make a class. Default: 0.3.")] = None,
    correlation: Annotated[str | None, Option(help="pearson or spearman. Default: pearson.")] = None,
    choices: Annotated[str | None, Option(help=CHOICES_HELP)] = None,
    primer: Annotated[Path | None, Option(help="A text file before every question with choices.")] = None,
    template: Annotated[str | None, Option(help="Of such a question. Default: 'Q: {question}\\nA:'.")] = None,
    compat_duplicate_last_prompt_token: Annotated[
        bool | None, Option("--compat-duplicate-last-prompt-token", help=TWICE_HELP)
    ] = None,
    long: Annotated[Literal["parquet", "csv"] | None, Option(help=LONG_HELP)] = None,
    out: Out = Path("studies/dynamics"),
) -> None:
    """How uncertainty moves while models answer: seven tables, classes, correlations (arXiv 2604.03589)."""
    arguments = locals()
    from jaxtrace.studies.dynamics.compute import DynamicsConfig, choices_of
    from jaxtrace.studies.dynamics.compute import dynamics as study
    from jaxtrace.studies.dynamics.long_format import write_long

    settings = configured(DynamicsConfig, config, arguments)
    if compat_duplicate_last_prompt_token:
        settings = settings.model_copy(update={"run": settings.run | {"prompt_positions": True}})
    found = traced(settings, out)
    result = study(found, settings, choices_of(found, settings))
    if long is not None:
        for label, trace in found.items():
            file = out / "long" / f"{label.strip('/').replace('/', '--')}.{long}"
            write_long(label, trace, file, hdi=settings.hdi, bytes_per_element=settings.kv_bytes)
            console.print(str(file), markup=False, highlight=False, soft_wrap=True)
    studied(result, out)
