"""All studies by name; imports no jax, numpy, pandas or matplotlib, so that `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtrace.settings.run import CHOICE_FIELDS
from jaxtrace.studies._shared.progress import SILENT, Progress
from jaxtrace.studies._shared.settings import StudyConfig
from jaxtrace.studies.dynamics.settings import DynamicsConfig
from jaxtrace.studies.expansion.settings import ExpansionConfig
from jaxtrace.studies.interventions.settings import InterventionsConfig
from jaxtrace.studies.lens.settings import LensConfig
from jaxtrace.studies.patterns.settings import PatternsConfig
from jaxtrace.studies.samplers.settings import SamplersConfig

if TYPE_CHECKING:
    from jaxtrace.studies._shared.result import Result


@dataclass(frozen=True)
class Study:
    """A study; the function `run_study(settings, out, progress)` in `compute.py` of its folder runs it.

    Attributes:
      name: verb of the command line, `jaxtrace study NAME`, and folder of jaxtrace/studies.
      example: command line for `--help`.
      run_settings: fields of `RunConfig` that the command line offers as options; they go to `StudyConfig.run`.
    """

    name: str
    summary: str
    settings: type[StudyConfig]
    example: str
    run_settings: tuple[str, ...] = ("revision", "task", "data", *CHOICE_FIELDS, "bos", "max_new_tokens")

    def execute(self, settings: StudyConfig, out: Path, progress: Progress = SILENT) -> Result:
        """Run the study: open or make its traces, run its models, write its extra files, and return its result.

        Args:
          out: directory of the study, for traces and files that it writes; the caller writes the result.

        Raises:
          JaxtraceError: a setting, a trace, a prompt, a model or a lens is unusable.
        """
        return import_module(f"jaxtrace.studies.{self.name}.compute").run_study(settings, out, progress)


STUDIES = (
    Study(
        "dynamics",
        "Follow uncertainty while models answer: seven tables, classes, correlations (arXiv 2604.03589).",
        DynamicsConfig,
        "jaxtrace study dynamics --config configs/studies/dynamics-demo.yaml --out studies/dynamics",
        (
            "revision",
            "task",
            "data",
            *CHOICE_FIELDS,
            "bos",
            "max_new_tokens",
            "compat_duplicate_last_prompt_token",
        ),
    ),
    Study(
        "expansion",
        "Find the layers that widen the prediction and those that prune it (Entropy-Lens).",
        ExpansionConfig,
        "jaxtrace study expansion --model demo --limit 12 --out studies/expansion",
        ("revision", "task", "data", *CHOICE_FIELDS, "bos"),
    ),
    Study(
        "interventions",
        "Skip the layers that widen or prune the prediction most, and random ones (Entropy-Lens).",
        InterventionsConfig,
        "jaxtrace study interventions --model Qwen/Qwen2.5-0.5B --task mmlu --limit 200",
        ("revision", "task", "data", *CHOICE_FIELDS, "bos"),
    ),
    Study(
        "lens",
        "Tell kinds of answers, or models, apart by a metric's profile through the layers (Entropy-Lens).",
        LensConfig,
        "jaxtrace study lens --config configs/studies/lens-demo.yaml --out studies/lens",
    ),
    Study(
        "patterns",
        "Compare attention entropy by condition: factual or creative, right or wrong, at the first wrong step.",
        PatternsConfig,
        "jaxtrace study patterns --config configs/studies/patterns.yaml --out studies/patterns",
    ),
    Study(
        "samplers",
        "Compare samplers on the same prompts: accuracy, entropy, length, quadrants, cost (Entropix).",
        SamplersConfig,
        "jaxtrace study samplers --model demo --limit 12 --sampler greedy --sampler entropix",
    ),
)


def known_studies() -> dict[str, Study]:
    """Return every study, by name."""
    return {study.name: study for study in STUDIES}
