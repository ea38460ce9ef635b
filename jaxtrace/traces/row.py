"""The trace of one prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxtrace.prompts import Prompt


@dataclass(frozen=True)
class Row:
    """The trace of one prompt.

    Attributes:
      prompt: traced prompt.
      prompt_tokens: int32 [P], token ids that were fed.
      prompt_pieces: text of each prompt token.
      metrics: name → array [steps, …], with the dims of `schema.QUANTITIES`; `attention_rows` covers the positions up
        to the last step's.
      pieces: text of each `token` in `metrics`, "" if there is none.
      text: completion, decoded as a whole and cut before a stop string (generate), or scored text.
      stop: reason for the end: "stop_token", "stop_string", "length", "repeats" or "scored"; "not_finite" if the
        model's logits were NaN or infinite. Such a step draws no token (−1), and its entropies are NaN.
      prompt_steps: number of leading steps that are prompt positions, whose next token is the prompt's own.
    """

    prompt: Prompt
    prompt_tokens: np.ndarray
    prompt_pieces: tuple[str, ...]
    metrics: dict[str, np.ndarray]
    pieces: tuple[str, ...]
    text: str
    stop: str
    prompt_steps: int = 0

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(self.metrics["token"])
