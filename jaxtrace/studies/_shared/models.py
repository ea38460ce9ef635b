"""Models of a study that runs them itself, one after another."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtrace.errors import StudyError
from jaxtrace.model import Model
from jaxtrace.run import open_config_model
from jaxtrace.settings.run import RunConfig, run_config
from jaxtrace.studies._shared.settings import StudyConfig


def load_models(config: StudyConfig, lens: str | None = None) -> Iterator[tuple[str, Model, RunConfig]]:
    """Yield each model of a study with its name and the settings of its run, one model in memory at a time.

    Args:
      config: settings of the study: its models, and their prompts in `run`.
      lens: directory of a tuned lens; None for the logit lens.

    Raises:
      StudyError: the settings name no model, or traces, which do not hold what the study measures.
      JaxtraceError: a model or the lens is unavailable.
    """
    if config.traces or not config.models:
        raise StudyError("this study runs models itself; name models (--model) and no traces")
    for name in config.models:
        run = run_config(**{**config.run, "model": name})
        model = Model.from_checkpoint(open_config_model(run), dtype=run.dtype, mesh=run.mesh)
        yield name, model.with_lens(lens), run
