"""The models of a study that runs them itself, one after another."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtrace.errors import StudyError
from jaxtrace.model import Model
from jaxtrace.run import RunConfig, open_config_model, run_config
from jaxtrace.studies._shared.settings import StudyConfig


def loaded(config: StudyConfig, lens: str | None = None) -> Iterator[tuple[str, Model, RunConfig]]:
    """Each model of a study with its name and the settings of its run; the one before is let go first.

    Args:
      config: names the models; what prompts they get is in its `run`.
      lens: directory of a tuned lens; None for the logit lens.

    Raises:
      StudyError: it names no model, or traces, which are not enough: the study leaves layers out or looks into them.
      JaxtraceError: a model, or the lens, cannot be had.
    """
    if config.traces or not config.models:
        raise StudyError("this study runs models itself: name them (--model), and no traces")
    for name in config.models:
        run = run_config(**{**config.run, "model": name})
        yield name, Model.of(open_config_model(run), mesh=run.mesh).with_lens(lens), run
