"""Options of the verbs whose `--out` may exist already; `jaxtrace.outputs` has the rule."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from jaxtrace.settings.groups import OUTPUT
from jaxtrace.settings.validation import StrictModel


class OverwriteOptions(StrictModel):
    """Option of the verbs that write a result at once."""

    overwrite: bool = Field(
        False, description="Replace the result in --out; it is refused otherwise.", json_schema_extra=OUTPUT
    )


class ResumeOptions(OverwriteOptions):
    """Options of the verbs that can continue a result. An unfinished one is continued without an option."""

    overwrite: bool = Field(
        False, description="Start again, and replace what an earlier command made in --out.", json_schema_extra=OUTPUT
    )
    resume: bool = Field(
        False, description="Accept a finished result in --out and keep its finished parts.", json_schema_extra=OUTPUT
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if self.overwrite and self.resume:
            raise ValueError("--overwrite starts again and --resume continues; give one of them")
        return self
