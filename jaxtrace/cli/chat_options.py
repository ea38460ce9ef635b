"""Options of a connection to a chat API, which several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic.config import JsonDict

from jaxtrace.settings.numbers import Float, Natural
from jaxtrace.settings.validation import StrictModel

if TYPE_CHECKING:
    from jaxtrace.grading.chat import Chat

LONGEST_TIMEOUT = 86_400.0  # seconds
JUDGE: JsonDict = {"group": "Judge"}


class ChatOptions(StrictModel):
    """Connection to an OpenAI-compatible chat API. Replies are stored, and not requested again."""

    judge_url: str | None = Field(
        None, description="Base URL of an OpenAI-compatible chat API.", json_schema_extra=JUDGE
    )
    cache: Path | None = Field(
        None,
        description="Directory of stored replies of the API. Default: OUT.cache.",
        json_schema_extra=JUDGE,
    )
    timeout: Float = Field(
        60.0,
        gt=0,
        le=LONGEST_TIMEOUT,
        description="Most seconds for each question to the API, all retries included.",
        json_schema_extra=JUDGE,
    )
    retries: Natural = Field(
        3, le=100, description="Number of further requests after the API fails.", json_schema_extra=JUDGE
    )

    def replies(self, out: Path) -> Path:
        """Return the directory of stored replies of a verb that writes a file."""
        return self.cache or out.with_name(f"{out.name}.cache")

    def chat(self, model: str, out: Path) -> Chat:
        """Return a connection to a model of the API, to enter."""
        from jaxtrace.grading.chat import Chat

        return Chat(self.judge_url or "", model, self.replies(out), timeout=self.timeout, retries=self.retries)
