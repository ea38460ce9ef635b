"""Settings of the dynamics study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from jaxtrace.settings.numbers import Count, Float
from jaxtrace.studies._shared.settings import Resamples, StudyConfig

if TYPE_CHECKING:
    from jaxtrace.statistics.intervals import Draws

HDIKind = Literal["std", "var", "cv", "fano", "range", "jsd"]
CorrelationMethod = Literal["pearson", "spearman"]
TEMPLATE = "Q: {question}\nA:"


def _check_template(template: str) -> str:
    if "{question}" not in template:
        raise ValueError("it must contain {question}")
    return template


class DynamicsConfig(StudyConfig):
    """Settings of `study dynamics`; thresholds and entropies are in nats."""

    hdi: HDIKind = Field("std", description="Kind of dispersion over heads.")
    share: Float = Field(0.2, gt=0, le=0.5, description="Share of a prompt's steps that counts as early, and as late.")
    least_steps: Annotated[Count, Field(ge=3)] = Field(
        5, description="Fewest steps of a prompt with an early, a late and a class."
    )
    tau: Float = Field(0.30, gt=0, description="Threshold in nats of the drift rule and of the robust rule.")
    low: Float = Field(0.3, ge=0, description="Mean entropy in nats below which the level rule says deterministic.")
    wide: Float = Field(
        0.8, ge=0, description="Standard deviation in nats above which the level rule says exploratory."
    )
    correlation: CorrelationMethod = Field("pearson", description="Kind of correlation between token features.")
    resamples: Resamples = Field(1000, description="Number of resamples of every interval.")
    kv_bytes: Count | None = Field(None, description="Bytes of a cached element. Default: the trace's own.")
    choices: str | None = Field(
        None, description="True and false answers to score: mc_task.json, a .parquet, a .csv as TruthfulQA's, or 'hub'."
    )
    primer: Path | None = Field(None, description="Text file to put before every question with choices.")
    template: Annotated[str, AfterValidator(_check_template)] = Field(
        TEMPLATE, description="Template of a question with choices; a space and an answer follow it."
    )
    long: Literal["parquet", "csv"] | None = Field(
        None, description="Also write the table of every phase, step and layer, long/MODEL, in this format."
    )

    @property
    def resampling(self) -> Draws:
        """Seed and number of the resamples of every interval."""
        return {"seed": self.seed, "resamples": self.resamples}
