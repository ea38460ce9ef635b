"""Settings of the patterns study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from jaxtrace.studies._shared.settings import Resamples, StudyConfig


class PatternsConfig(StudyConfig):
    """Settings of `study patterns`."""

    by: str = Field(
        "condition",
        description="Comparison: a key of the prompts' meta, or a setting of a dataset's runs, such as revision; grade "
        "(correct and not attempted against incorrect), correctness (correct against incorrect), or wrong_step (tokens "
        "of the first wrong step against the others).",
    )
    conditions: tuple[str, ...] = Field(
        (),
        description="Condition to compare, in this order; repeat the option for several. Default: all, sorted.",
        json_schema_extra={"option": "--condition"},
    )
    labels: Path | None = Field(None, description="File of `jaxtrace grade`. Default: answers graded by string rules.")
    resamples: Annotated[Resamples, Field(ge=100)] = Field(
        2000, description="Number of resamples of intervals and of permutation tests."
    )
