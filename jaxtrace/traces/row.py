"""The trace of one prompt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int

from jaxtrace.prompts import Prompt
from jaxtrace.traces.thoughts import SplitCompletion, count_markers, opens_thought, split_completion

# Reasons for the end of a row; "" for a row that has not ended.
STOPS = ("stop_token", "stop_string", "length", "repeats", "scored", "not_finite", "")


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

    @property
    def drawn_steps(self) -> Int[np.ndarray, " steps"]:
        """Steps after the prompt that drew a token; logits that are not finite draw none."""
        steps = np.flatnonzero(self.metrics["token"] >= 0)
        return steps[steps >= self.prompt_steps]

    @property
    def prompt_key(self) -> str:
        """Text that all samples of a prompt share, whatever the tokenizer or chat template.

        This is the prompt's text or its messages, with the files of its images; for a prompt that was given as ids, its
        tokens.
        """
        images = "".join(f"\n{image}" for image in self.prompt.images if isinstance(image, str | Path))
        if self.prompt.messages is not None:
            return json.dumps(self.prompt.messages) + images
        return (" ".join(map(str, self.prompt_tokens)) if self.prompt.text is None else self.prompt.text) + images

    @property
    def thought(self) -> str:
        """Text of the thought of a reasoning model, without its markers; "" if there is none."""
        return self._split.thought

    @property
    def answer(self) -> str | None:
        """Completion without its thought, which is what grades are about; None if the thought is not closed."""
        return self._split.answer

    @property
    def drawn_text(self) -> str:
        """Text of all drawn tokens, control tokens included; the markers of some thoughts are control tokens."""
        return "".join(self.pieces[self.prompt_steps :])

    @property
    def answer_start(self) -> int:
        """Offset in `drawn_text` of the answer; the text's length if the thought is not closed."""
        return split_completion(self.drawn_text, opened=self._thought_is_opened).start

    @property
    def _thought_is_opened(self) -> bool:
        return opens_thought("".join(self.prompt_pieces))

    @cached_property
    def _split(self) -> SplitCompletion:
        text, drawn = self.text, self.drawn_text
        if count_markers(drawn) <= count_markers(text):
            return split_completion(text, opened=self._thought_is_opened)
        thought, answer, start = split_completion(drawn, opened=self._thought_is_opened)
        for piece in {piece for piece in self.pieces[self.prompt_steps :] if piece not in text}:  # control tokens
            thought, answer = thought.replace(piece, ""), answer and answer.replace(piece, "")
        return SplitCompletion(thought, answer, start)
