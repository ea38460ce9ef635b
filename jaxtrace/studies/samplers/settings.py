"""Settings of the samplers study."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from jaxtrace.settings.entries import Entry, entries
from jaxtrace.settings.numbers import Seed
from jaxtrace.studies._shared.settings import StudyConfig


class SamplersConfig(StudyConfig):
    """Settings of `study samplers`."""

    samplers: Annotated[tuple[Entry, ...], entries("sampler", {"sampler": "sample"})] = Field(
        ({"sampler": "greedy"}, {"sampler": "sample"}, {"sampler": "entropix"}, {"sampler": "dslider"}),
        description="Sampler to compare with the first: a name, or settings such as {temperature: 0.7} in YAML; "
        "repeat the option for several.",
        json_schema_extra={"option": "--sampler", "runs_only": True},
    )
    seeds: tuple[Seed, ...] = Field(
        (0, 1, 2),
        min_length=1,
        description="Seed of the sampled tokens, used for all prompts; repeat the option for several.",
        json_schema_extra={"option": "--draws", "runs_only": True},
    )
