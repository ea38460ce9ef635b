"""What a task hands to the tracer."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """One thing to trace: text, or token ids for a checkpoint without a tokenizer.

    Attributes:
      text: the prompt as a person wrote it; None when `tokens` is given.
      tokens: the exact ids to feed; None when `text` is given.
      id: a stable name within its task ("truthfulqa-0017").
      images: what the text is about, for a model that sees: files, or Pillow images.
      meta: what else the task knows (category, answers); JSON-serialisable, stored beside the trace.
    """

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    id: str = ""
    images: tuple[Any, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
