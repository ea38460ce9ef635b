"""Multiple choice by the first token of each option: one forward pass a question, whatever is left out of it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxtrace.engine.buckets import chunk, chunk_widths
from jaxtrace.errors import StudyError
from jaxtrace.model import Model
from jaxtrace.models.cache import empty_cache
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, is_stacked
from jaxtrace.models.forward import forward, unembed
from jaxtrace.models.interventions import Interventions
from jaxtrace.models.on_mesh import on_mesh_of
from jaxtrace.prompts import Prompt
from jaxtrace.studies.interventions.settings import OptionKind

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Question:
    """A prompt whose answer is one of some tokens.

    Attributes:
      prompt: with the choices and the answer's letter in its meta.
      tokens: its ids.
      options: the token that stands for each choice.
      answer: which of them is right, from 0.
    """

    prompt: Prompt
    tokens: Int[np.ndarray, " P"]
    options: tuple[int, ...]
    answer: int


@dataclass(frozen=True)
class Answers:
    """What a model says to Q questions.

    Attributes:
      correct: whether its likeliest option is the right one.
      option_entropy: entropy of the options' probabilities among themselves, nats.
      entropy: of the next-token distribution, nats.
    """

    correct: Bool[np.ndarray, " Q"]
    option_entropy: Float[np.ndarray, " Q"]
    entropy: Float[np.ndarray, " Q"]


def questions_of(model: Model, prompts: Sequence[Prompt], by: OptionKind = "letter") -> list[Question]:
    """Multiple-choice prompts with the tokens of their options.

    Args:
      model: with a tokenizer. Prompts are fed as they are, without a chat template.
      prompts: with `choices`, a list, and `answer`, the right one's letter, in their meta.
      by: "letter" for the tokens " A", " B", …, as prompts that list their choices want it; "choice" for the first
        token of each choice's text.

    Raises:
      StudyError: a prompt has no choices or no such answer, its letters are no tokens, or its choices do not begin with
        tokens of their own.
    """
    encoded = model.encode(prompts, chat=False)
    return [_question(model, prompt, tokens, by) for prompt, tokens in encoded]


def answer(
    model: Model, questions: Sequence[Question], masks: Interventions | None = None, batch_size: int = 16
) -> Answers:
    """What a model says, with blocks and heads left out or none; masks of one kind are one program for each length."""
    order = sorted(range(len(questions)), key=lambda i: len(questions[i].tokens))
    most = max(len(question.options) for question in questions)
    logprobs, entropy = np.full((len(questions), most), -np.inf), np.zeros(len(questions))
    with on_mesh_of(model.params):
        for at in range(0, len(order), batch_size):
            group = order[at : at + batch_size]
            some = [questions[i] for i in group] + [questions[group[-1]]] * (batch_size - len(group))
            width = sum(chunk_widths(max(len(question.tokens) for question in some)))
            tokens, count = chunk([question.tokens for question in some], width)
            options, _ = chunk([np.array(question.options, np.int32) for question in some], most)
            found = _read(model.params, tokens, count, options, masks, config=model.config)
            of_options, entropies = (np.asarray(x)[: len(group)] for x in found)
            for i, row in zip(group, of_options, strict=True):
                own = len(questions[i].options)
                logprobs[i, :own] = row[:own]
            entropy[group] = entropies
    chosen = logprobs.argmax(1)
    shares = np.exp(logprobs - np.logaddexp.reduce(logprobs, axis=1, keepdims=True))
    terms = np.where(shares > 0, -shares * np.log(np.where(shares > 0, shares, 1)), 0)
    correct = chosen == np.array([question.answer for question in questions])
    return Answers(correct, terms.sum(1), entropy)


@functools.partial(jax.jit, static_argnames="config")
def _read(
    params: Params,
    tokens: Int[Array, "B T"],
    count: Int[Array, " B"],
    options: Int[Array, "B C"],
    masks: Interventions | None,
    *,
    config: DecoderConfig,
) -> tuple[Float[Array, "B C"], Float[Array, " B"]]:
    """Log-probabilities of the options after each row's last token, and the entropy there."""
    batch, width = tokens.shape
    cache = empty_cache(config, batch, width, stacked=is_stacked(params), dtype=params["embedding"].dtype)
    result = forward(config, params, tokens, cache, jnp.zeros(batch, jnp.int32), interventions=masks)
    last = jnp.take_along_axis(result.hidden, (count - 1)[:, None, None], axis=1)[:, 0]
    logprobs = jax.nn.log_softmax(unembed(config, params, last))
    return jnp.take_along_axis(logprobs, options, axis=1), -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)


def _question(model: Model, prompt: Prompt, tokens: Int[np.ndarray, " P"], by: OptionKind) -> Question:
    choices: Any = prompt.meta.get("choices")
    letters = LETTERS[: len(choices)] if isinstance(choices, list) else ""
    right = prompt.meta.get("answer")
    if len(letters) < 2 or right not in [*letters]:
        raise StudyError(
            f"prompt {prompt.id}: has no list of choices, or no answer by its letter; take multiple-choice prompts"
        )
    if model.tokenizer is None or prompt.text is None:
        raise StudyError(f"prompt {prompt.id}: options are texts, and there is no tokenizer; take a model that has one")
    options = []
    for option in letters if by == "letter" else choices:
        ids = model.tokenizer.encode(f"{prompt.text} {option}", chat=False)
        if ids[: len(tokens)] != tokens.tolist() or len(ids) == len(tokens):
            raise StudyError(f"prompt {prompt.id}: {option!r} after it changes the prompt's own tokens; reword it")
        if by == "letter" and len(ids) > len(tokens) + 1:
            raise StudyError(f"prompt {prompt.id}: ' {option}' is no token of the model's; score each 'choice' instead")
        options.append(ids[len(tokens)])
    if len(set(options)) < len(options):
        raise StudyError(f"prompt {prompt.id}: two options begin with the same token; score them by letter, or reword")
    return Question(prompt, tokens, tuple(options), letters.index(right))
