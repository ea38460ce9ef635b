"""Settings of the lens study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from jaxtrace.settings.numbers import Count, Seed
from jaxtrace.settings.validation import ONE_OR_MORE
from jaxtrace.studies._shared.settings import StudyConfig


class LensConfig(StudyConfig):
    """Settings of `study lens`; defaults are Entropy-Lens's, where it states them."""

    seed: Seed = Field(42, description="Seed of folds, guesses, resamples and the t-SNE.")
    by: str = Field(
        "task", description="Classes to tell apart: family, task, format, correctness, or a key of prompts or run."
    )
    metric: Annotated[tuple[str, ...], ONE_OR_MORE] = Field(
        ("lens_entropy",),
        min_length=1,
        description="Metric with a value for each layer, such as lens_renyi[2]; repeat the option for several.",
    )
    windows: Count | Literal["each"] = Field(
        1, description="Number of runs of steps, each averaged: 1 is the mean of all steps; 'each' keeps every step."
    )
    steps: Count | None = Field(
        None, description="Number of steps used from the start; shorter answers are excluded. Default: all steps."
    )
    points: Annotated[Count, Field(ge=2, le=10_000)] = Field(
        64, description="Number of relative depths at which models of unequal depth are compared."
    )
    zero_padding: bool = Field(
        False, description="Also pad profiles with zeros, as published: this gives a model's depth away."
    )
    group: str | None = Field(
        None, description="Key of meta whose prompts stay together. Default: story, topic, question, or the prompt."
    )
    neighbours: tuple[Count, ...] = Field(
        (3, 5, 11, 29), min_length=1, description="Number of nearest neighbours; repeat the option for several."
    )
    folds: Annotated[Count, Field(ge=2)] = Field(10, description="Number of cross-validation folds.")
    labels: Path | None = Field(None, description="File of `jaxtrace grade`, for correctness. Default: string rules.")
    published_checker: bool = Field(
        False, description="Grade MMLU as Entropy-Lens's code does, by a letter in prompt and answer."
    )
