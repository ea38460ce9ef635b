"""Prompts, as tasks give them and runs trace them."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """Prompt of one row: text, messages, or token ids for a checkpoint without a tokenizer.

    Attributes:
      text: text as a person wrote it; None if `tokens` or `messages` are given.
      tokens: exact ids to feed; None if `text` or `messages` are given.
      id: stable name within its task ("truthfulqa-0017").
      images: images for a multimodal model: files, or Pillow images.
      meta: metadata from the task (category, answers), JSON-serialisable; stored with the trace.
      messages: messages of a chat in order, {"role": "user", "content": "…"}, JSON-serialisable; None if `text` or
        `tokens` are given.
    """

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    id: str = ""
    images: tuple[Any, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    messages: tuple[dict[str, Any], ...] | None = None
