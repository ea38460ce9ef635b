"""Settings of the interventions study."""

from __future__ import annotations

from pydantic import Field

from jaxtrace.settings.numbers import Count, Float
from jaxtrace.settings.prompt import OptionKind
from jaxtrace.studies._shared.settings import LayerStudyConfig


class InterventionsConfig(LayerStudyConfig):
    """Settings of `study interventions`."""

    counts: tuple[Count, ...] = Field(
        (1, 2, 3),
        min_length=1,
        description="Number of layers to skip; repeat the option for several.",
        json_schema_extra={"option": "--count"},
    )
    draws: Count = Field(10, le=10_000, description="Sets of random layers for each count.")
    held_out: Float = Field(0.2, gt=0, lt=1, description="Share of the questions that the layers are chosen by.")
    options: OptionKind = Field(
        "letter", description="'letter' scores ' A', ' B', …; 'choice' scores the first token of each choice."
    )
    batch_size: Count = Field(16, description="Questions run at once.")
