"""Settings of trainings: read without importing JAX."""

from __future__ import annotations

from pydantic import Field

from jaxtrace.settings.numbers import Count, Float32, Seed
from jaxtrace.settings.validation import StrictModel


class Recipe(StrictModel):
    """Settings that decide a training's result, besides the model and the text."""

    steps: Count = Field(description="Number of optimiser steps.")
    batch: Count = Field(description="Sequences per step.")
    length: Count = Field(description="Tokens per sequence.")
    learning_rate: Float32 = Field(gt=0, description="Peak learning rate.")
    weight_decay: Float32 = Field(ge=0, description="Weight decay of AdamW.")
    seed: Seed = Field(default=0, description="Seed of the initial weights and of the order of the sequences.")


class LensRecipe(Recipe):
    """Settings of a tuned lens's training."""

    steps: Count = Field(default=250, description="Number of optimiser steps.")
    batch: Count = Field(default=8, description="Sequences per step.")
    length: Count = Field(default=128, description="Tokens per sequence; the model's context is the maximum.")
    learning_rate: Float32 = Field(default=1e-3, gt=0, description="Initial learning rate; it falls linearly to 0.")
    weight_decay: Float32 = Field(default=1e-3, ge=0, description="Weight decay of AdamW, towards the logit lens.")
    seed: Seed = Field(default=0, description="Seed of the held-out split and of the order of the sequences.")
