"""Settings that several studies share; imports no jax, numpy, pandas or matplotlib."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from jaxtrace.settings.numbers import Count, Float32, Seed
from jaxtrace.settings.validation import StrictModel

PAGE = "study.html"  # written last
FILES = ("tables", "*.png", "traces", "answers", "long")  # patterns of the other names in a study's directory

Resamples = Annotated[Count, Field(le=100_000)]


class StudyConfig(StrictModel):
    """Settings that every study takes. Unknown fields are refused.

    A field's `json_schema_extra` tells the command line what it cannot know from the field's name: "option" is the
    option's name where it is not the field's (None: no option), "positional" the placeholder of a positional argument,
    and "runs_only" marks a setting that only affects runs that the study makes, so that it contradicts given traces.
    """

    traces: tuple[str, ...] = Field(
        (), description="Directories or URLs of the traces to study.", json_schema_extra={"positional": "TRACE"}
    )
    models: tuple[str, ...] = Field(
        (),
        description="Model to trace first, instead of giving traces; repeat the option for several.",
        json_schema_extra={"option": "--model"},
    )
    run: dict[str, Any] = Field(
        {},
        description="Settings of the runs that trace these models; same fields as a run's YAML file.",
        json_schema_extra={"option": None},
    )
    seed: Seed = Field(0, description="Seed of everything that the study draws at random, and of the runs' --sample.")


class LayerStudyConfig(StudyConfig):
    """Settings of the studies that run models themselves and read every layer through a lens."""

    traces: tuple[str, ...] = Field(
        (), description="Refused: this study runs models itself.", json_schema_extra={"option": None}
    )
    mass: Float32 = Field(
        0.6, gt=0, lt=1, description="Probability that a layer's candidate set reaches: its most likely tokens."
    )
    lens: str | None = Field(None, description="Directory of a tuned lens of the model. Default: the logit lens.")
