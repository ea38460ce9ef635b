"""Prompts to token ids, and the refusal of those that cannot be fed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import PromptError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.tasks.prompt import Prompt

PromptLike = str | Sequence[int] | Prompt


def encode(
    prompts: Sequence[PromptLike], model: str, config: DecoderConfig, tokenizer: Tokenizer | None, *, chat: bool
) -> list[tuple[Prompt, np.ndarray]]:
    """Prompts beside their token ids, int32.

    Args:
      prompts: texts, lists of token ids, or `Prompt`s.
      model: its name, for messages.
      config: of its decoder, for the vocabulary and the context.
      tokenizer: None where prompts must be ids.
      chat: put texts as a chat's first turn where the tokenizer has a template.

    Raises:
      PromptError: a prompt is empty, longer than the context, text without a tokenizer, or has an unknown id.
    """
    if isinstance(prompts, str):
        raise PromptError("prompts must be a list; put the one text in brackets")
    return [_encode(i, _as_prompt(prompt), model, config, tokenizer, chat) for i, prompt in enumerate(prompts)]


def _encode(
    index: int, prompt: Prompt, model: str, config: DecoderConfig, tokenizer: Tokenizer | None, chat: bool
) -> tuple[Prompt, np.ndarray]:
    name = f"prompt {prompt.id or index}"
    if prompt.tokens is not None:
        ids = list(prompt.tokens)
    elif tokenizer is None:
        raise PromptError(f"{name}: {model} has no tokenizer; give lists of token ids instead of text")
    elif not (prompt.text or "").strip():
        raise PromptError(f"{name}: is empty; give it some text")
    else:
        ids = tokenizer.encode(prompt.text or "", chat=chat)
    if not ids:
        raise PromptError(f"{name}: is empty; give it at least one token")
    if bad := [i for i in ids if not 0 <= i < config.vocab]:
        raise PromptError(f"{name}: id {bad[0]} is outside the vocabulary of {config.vocab}; leave it out")
    if len(ids) > config.context:
        raise PromptError(
            f"{name}: has {len(ids)} tokens, and the context of {model} holds {config.context}; shorten it"
        )
    return prompt, np.array(ids, np.int32)


def _as_prompt(prompt: PromptLike) -> Prompt:
    if isinstance(prompt, Prompt):
        return prompt
    if isinstance(prompt, str):
        return Prompt(text=prompt)
    return Prompt(tokens=tuple(int(i) for i in prompt))
