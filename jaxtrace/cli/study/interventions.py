"""`jaxtrace study interventions`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from jaxtrace.cli.app import Option, verb
from jaxtrace.cli.progress import counter
from jaxtrace.cli.study.common import Config, Data, Limit, Models, Out, Seed, Task, configured, studied, study_app
from jaxtrace.cli.study.expansion import Lens, Mass


@study_app.command()
@verb
def interventions(
    config: Config = None,
    models: Models = None,
    task: Task = None,
    data: Data = None,
    limit: Limit = None,
    counts: Annotated[
        list[int] | None,
        Option("--count", help="How many layers are skipped; may be given several times. Default: 1, 2, 3."),
    ] = None,
    draws: Annotated[int | None, Option(help="Sets of random layers for each count. Default: 10.")] = None,
    held_out: Annotated[
        float | None, Option(help="Share of the questions that layers are chosen by. Default: 0.2.")
    ] = None,
    options: Annotated[
        str | None, Option(help="'letter' to score ' A', ' B', …; 'choice' for each choice's first token.")
    ] = None,
    mass: Mass = None,
    lens: Lens = None,
    seed: Seed = None,
    out: Out = Path("studies/interventions"),
) -> None:
    """Skip the layers that widen or prune the prediction the most, and as many random ones (Entropy-Lens)."""
    given = locals()
    from jaxtrace.studies._shared.models import loaded
    from jaxtrace.studies.interventions.compute import InterventionsConfig, measure_interventions
    from jaxtrace.studies.interventions.compute import interventions as study
    from jaxtrace.studies.interventions.single_token_choices import questions_of

    settings = configured(InterventionsConfig, config, given)
    measured = {}
    for label, model, run in loaded(settings, settings.lens):
        questions = questions_of(model, run.load_prompts(), settings.options)
        with counter(label, "sets of layers") as bar:
            measured[label] = measure_interventions(model, questions, settings, bar, out / "answers" / Path(label).name)
    studied(study(measured, settings), out)
