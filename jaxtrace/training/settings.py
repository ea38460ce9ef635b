"""Settings of trainings: read without importing JAX."""

from __future__ import annotations

from pydantic import Field

from jaxtrace.settings.validation import StrictModel


class Recipe(StrictModel):
    """Settings that decide a training's result, besides the model and the text."""

    steps: int = Field(ge=1, description="Number of optimiser steps.")
    batch: int = Field(ge=1, description="Sequences per step.")
    length: int = Field(ge=1, description="Tokens per sequence.")
    learning_rate: float = Field(gt=0, description="Peak learning rate.")
    weight_decay: float = Field(ge=0, description="Weight decay of AdamW.")
    seed: int = Field(default=0, ge=0, description="Seed of the initial weights and of the order of the sequences.")


class LensRecipe(Recipe):
    """Settings of a tuned lens's training."""

    steps: int = Field(default=250, ge=1, description="Number of optimiser steps.")
    batch: int = Field(default=8, ge=1, description="Sequences per step.")
    length: int = Field(default=128, ge=1, description="Tokens per sequence; the model's context is the maximum.")
    learning_rate: float = Field(default=1e-3, gt=0, description="Initial learning rate; it falls linearly to 0.")
    weight_decay: float = Field(default=1e-3, ge=0, description="Weight decay of AdamW, towards the logit lens.")
    seed: int = Field(default=0, ge=0, description="Seed of the held-out split and of the order of the sequences.")
