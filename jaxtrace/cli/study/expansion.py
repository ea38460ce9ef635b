"""`jaxtrace study expansion`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from jaxtrace.cli.app import Option, verb
from jaxtrace.cli.progress import counter
from jaxtrace.cli.study.common import Config, Data, Limit, Models, Out, Seed, Task, configured, studied, study_app

Lens = Annotated[str | None, Option(help="Directory of a tuned lens of the model; the logit lens without it.")]
Mass = Annotated[float | None, Option(help="Probability that a candidate set reaches. Default: 0.6.")]


@study_app.command()
@verb
def expansion(
    config: Config = None,
    models: Models = None,
    task: Task = None,
    data: Data = None,
    limit: Limit = None,
    mass: Mass = None,
    lens: Lens = None,
    seed: Seed = None,
    out: Out = Path("studies/expansion"),
) -> None:
    """Find the layers that widen the prediction and those that prune it (Entropy-Lens)."""
    given = locals()
    from jaxtrace.studies._shared.models import loaded
    from jaxtrace.studies.expansion.compute import ExpansionConfig, measure_expansions
    from jaxtrace.studies.expansion.compute import expansion as study

    settings = configured(ExpansionConfig, config, given)
    measured = {}
    for label, model, run in loaded(settings, settings.lens):
        encoded = model.encode(run.load_prompts(), chat=not run.raw)
        with counter(label, "prompts") as bar:
            measured[label] = measure_expansions(model, encoded, settings.mass, run.batch_size, bar)
    studied(study(measured, settings), out)
