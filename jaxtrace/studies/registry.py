"""All studies by name; imports no jax, numpy, pandas or matplotlib, so that `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtrace.studies._shared.settings import StudyConfig

if TYPE_CHECKING:
    from jaxtrace.studies._shared.progress import Progress
    from jaxtrace.studies._shared.result import Result

# Folders of jaxtrace/studies whose __init__.py defines STUDY.
NAMES = ("dynamics", "expansion", "interventions", "lens", "patterns", "samplers")


@dataclass(frozen=True)
class Study:
    """A study as its folder registers it.

    Attributes:
      name: verb of the command line, `jaxtrace study NAME`.
      summary: one line for `--help`.
      settings: model of the study's settings.
      run: "module:function" of `(settings, out, progress) -> Result`, imported at the first call.
      example: command line for `--help`.
      run_settings: fields of `RunConfig` that the command line offers as options; they go to `StudyConfig.run`.
    """

    name: str
    summary: str
    settings: type[StudyConfig]
    run: str
    example: str
    run_settings: tuple[str, ...] = ("revision", "task", "data", "limit", "max_new_tokens")

    def execute(self, settings: StudyConfig, out: Path, progress: Progress | None = None) -> Result:
        """Run the study: open or make its traces, run its models, write its extra files, and return its result.

        Args:
          out: directory of the study, for traces and files that it writes; the caller writes the result.

        Raises:
          JaxtraceError: a setting, a trace, a prompt or a model is unusable.
        """
        from jaxtrace.studies._shared.progress import SILENT

        module, function = self.run.split(":")
        return getattr(import_module(module), function)(settings, out, progress or SILENT)


def known_studies() -> dict[str, Study]:
    """Return every registered study, by name."""
    return {name: import_module(f"jaxtrace.studies.{name}").STUDY for name in NAMES}
