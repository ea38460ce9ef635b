"""Settings of `confidence train`; imports no jax, numpy, pandas or scikit-learn."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jaxtrace.settings.validation import StrictModel


class ConfidenceConfig(StrictModel):
    """Settings of the training. Unknown fields are refused."""

    keep: Literal["logistic", "mlp"] = Field("logistic", description="Classifier to keep.")
    hidden: int = Field(16, ge=1, description="Units of the network's hidden layer.")
    penalty: float = Field(0.3, ge=0, description="Penalty on the squared weights of answers' standardized features.")
    token_penalty: float = Field(
        0.003, ge=0, description="Penalty on the squared weights of tokens' standardized features."
    )
    group: str | None = Field(
        None, description="Key of the prompts' meta whose values form the groups. Default: each prompt is a group."
    )
    folds: int = Field(5, ge=2, description="Number of parts of the cross-validation; a group is in one part.")
    resamples: int = Field(1000, ge=1, description="Number of resamples of groups for the intervals.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the folds, the first weights and the resamples.")
