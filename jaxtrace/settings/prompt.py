"""Settings of how prompts become token ids: defaults that runs and `Model.generate` share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from jaxtrace.documents import decode_json
from jaxtrace.settings.groups import PROMPT
from jaxtrace.settings.validation import StrictModel

ChatMode = Literal["auto", "always", "never"]
StartMode = Literal["auto", "always", "never"]
OptionKind = Literal["letter", "choice"]  # text of a multiple-choice option whose first token is scored
PYTHON_VALUES = {"True": True, "False": False, "None": None}  # a text "False" would count as true in a template


def _key_values(value: Any) -> Any:
    """Turn texts KEY=VALUE into a mapping; a value that is no JSON is a text."""
    texts = [value] if isinstance(value, str) else value
    if not (isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts)):
        return value
    pairs = [text.partition("=") for text in texts]
    if wrong := [key for key, equals, _ in pairs if not (key.strip() and equals)]:
        raise ValueError(f"write KEY=VALUE, not {wrong[0]!r}")
    return {key.strip(): _json_value(text) for key, _, text in pairs}


def _json_value(text: str) -> Any:
    if text in PYTHON_VALUES:
        return PYTHON_VALUES[text]
    try:
        return decode_json(text)
    except ValueError:
        return text


KEY_VALUES = BeforeValidator(_key_values)


class PromptSettings(StrictModel):
    """Chat template of prompts, its messages and arguments, the start token, and the treatment of control tokens."""

    chat: ChatMode = Field(
        default="auto",
        description="Format prompts with the chat template: if the model has one, always, or never.",
        json_schema_extra=PROMPT,
    )
    raw: bool = Field(
        default=False,
        description="Feed prompts without the chat template; short for --chat never.",
        json_schema_extra=PROMPT,
    )
    system: str | None = Field(
        default=None, description="System message, put before every prompt.", json_schema_extra=PROMPT
    )
    template_arg: Annotated[dict[str, JsonValue] | None, KEY_VALUES] = Field(
        default=None,
        description="Argument of the chat template, such as enable_thinking=false; repeat the option for several.",
        json_schema_extra=PROMPT,
    )
    prefix: str = Field(
        default="", description="Text that every answer begins with; fed after the prompt.", json_schema_extra=PROMPT
    )
    bos: StartMode = Field(
        default="auto",
        description="Start token (BOS) before prompts: as tokenizer and chat template put it, always one, or never.",
        json_schema_extra=PROMPT,
    )
    allow_special: bool = Field(
        default=False,
        description="Parse control tokens in the text of messages; otherwise they are plain text.",
        json_schema_extra=PROMPT,
    )

    @property
    def chat_mode(self) -> ChatMode:
        """Use of the chat template; "never" for raw prompts."""
        return "never" if self.raw else self.chat

    @property
    def template_settings(self) -> list[str]:
        """Names of the given settings that only a chat template can use."""
        return [name for name in ("system", "template_arg") if getattr(self, name) not in (None, {})]

    @property
    def text_settings(self) -> list[str]:
        """Names of the given settings that change how a text is encoded, so that token ids cannot use them."""
        return [*["prefix"] * bool(self.prefix), *["bos"] * (self.bos != "auto")]

    @model_validator(mode="after")
    def _check_chat(self) -> Self:
        if self.raw and self.chat == "always":
            raise ValueError("raw and chat 'always' exclude each other; keep one")
        if self.chat_mode == "never" and self.template_settings:
            raise ValueError(f"{self.template_settings[0]} needs the chat template; drop it, or raw and chat 'never'")
        return self
