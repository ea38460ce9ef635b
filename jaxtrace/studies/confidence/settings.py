"""Settings of `confidence train`; imports no jax, numpy, pandas or scikit-learn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from jaxtrace.settings.numbers import Count, Float32, Seed
from jaxtrace.settings.validation import StrictModel
from jaxtrace.studies._shared.settings import Resamples


class ConfidenceConfig(StrictModel):
    """Settings of the training. Unknown fields are refused."""

    keep: Literal["logistic", "mlp"] = Field("logistic", description="Classifier to keep.")
    hidden: Count = Field(16, le=10_000, description="Units of the network's hidden layer.")
    penalty: Float32 = Field(0.3, ge=0, description="Penalty on the squared weights of answers' standardized features.")
    token_penalty: Float32 = Field(
        0.003, ge=0, description="Penalty on the squared weights of tokens' standardized features."
    )
    group: str | None = Field(
        None, description="Key of the prompts' meta whose values form the groups. Default: each prompt is a group."
    )
    folds: Annotated[Count, Field(ge=2)] = Field(
        5, description="Number of parts of the cross-validation; a group is in one part."
    )
    resamples: Resamples = Field(1000, description="Number of resamples of groups for the intervals.")
    seed: Seed = Field(0, description="Seed of the folds, the first weights and the resamples.")
