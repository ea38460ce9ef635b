"""Prompts, as tasks give them and runs trace them."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """Prompt of one row: text, or token ids for a checkpoint without a tokenizer.

    Attributes:
      text: text as a person wrote it; None if `tokens` is given.
      tokens: exact ids to feed; None if `text` is given.
      id: stable name within its task ("truthfulqa-0017").
      images: images for a multimodal model: files, or Pillow images.
      meta: metadata from the task (category, answers), JSON-serialisable; stored with the trace.
    """

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    id: str = ""
    images: tuple[Any, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
