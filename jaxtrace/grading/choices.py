"""Multiple choice by the first token of each option: one forward pass per batch of questions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.special import entr, softmax

from jaxtrace.checkpoints.tokenizer import EncodedText
from jaxtrace.engine.buckets import chunk, chunk_widths
from jaxtrace.errors import StudyError, shown
from jaxtrace.grading.labels import Label, digest
from jaxtrace.grading.strings import Grade
from jaxtrace.kernels.moments import entropy_of
from jaxtrace.model import Model
from jaxtrace.models.cache import empty_cache
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, is_stacked
from jaxtrace.models.forward import forward, unembed
from jaxtrace.models.interventions import Interventions
from jaxtrace.models.on_mesh import use_mesh_of
from jaxtrace.prompts import Prompt
from jaxtrace.settings.prompt import OptionKind, PromptSettings
from jaxtrace.traces.row import Row

LETTERS = "ABCDEFGHIJ"
LIKELIEST = "likeliest letter"


@dataclass(frozen=True)
class ChoiceQuestion:
    """A prompt whose answer is one of some tokens.

    Attributes:
      prompt: prompt, with the choices and the answer's letter in its meta.
      options: token of each choice.
      answer: index of the right choice.
    """

    prompt: Prompt
    tokens: Int[np.ndarray, " P"]
    options: tuple[int, ...]
    answer: int


@dataclass(frozen=True)
class ChoiceAnswers:
    """A model's answers to Q questions.

    Attributes:
      correct: True if the most likely option is the right one; False for logits that are not finite.
      option_entropy: entropy of the options' probabilities, renormalised, nats.
      entropy: entropy of the next-token distribution, nats.
    """

    correct: Bool[np.ndarray, " Q"]
    option_entropy: Float[np.ndarray, " Q"]
    entropy: Float[np.ndarray, " Q"]


def choice_questions(
    model: Model,
    prompts: Sequence[Prompt],
    by: OptionKind = "letter",
    settings: PromptSettings | None = None,
    *,
    chat: bool = False,
    date: datetime | None = None,
) -> list[ChoiceQuestion]:
    """Return multiple-choice prompts with the tokens of their options, as they would follow the prompt.

    Args:
      prompts: prompts with `choices`, a list, and `answer`, the right one's letter, in their meta.
      by: "letter" for the tokens of " A", " B", … (without the space after a prompt that ends in white space, as a chat
        template's does), for prompts that list their choices; "choice" for the first token of each choice's text.
      settings: use of the chat template, and text around the prompts; None for the defaults.
      chat: False feeds texts without the chat template, whatever the settings say.
      date: current time for the chat template; None for now.

    Raises:
      StudyError: a prompt has no choices or no valid answer, its letters are not single tokens, or two choices begin
        with the same token.
      PromptError: a prompt cannot be fed.
    """
    settings, date = settings or PromptSettings(), date or datetime.now()
    encoded = model.encode(prompts, settings, chat=chat, date=date)
    return [_choice_question(model, prompt, tokens, by, settings, chat, date) for prompt, tokens in encoded]


def letter_labels(
    model: Model,
    rows: Sequence[Row],
    settings: PromptSettings,
    date: datetime | None = None,
    batch_size: int = 16,
    on_answers: Callable[[int, int], None] = lambda *_: None,
) -> list[Label]:
    """Return labels of answers to multiple-choice prompts by the likeliest letter, whatever text was drawn.

    The letters are scored as the first token of the answer, after the prompt that the rows' run was given.

    Args:
      settings: settings of the rows' prompts.
      date: time that the chat template was given.
      on_answers: see `answer_questions`.

    Raises:
      StudyError: an error of `choice_questions`, or a prompt is now encoded otherwise than in its row.
    """
    distinct = {tuple(map(int, row.prompt_tokens)): row for row in rows}
    prompts = [row.prompt for row in distinct.values()]
    questions = choice_questions(model, prompts, settings=settings, chat=True, date=date)
    for question, tokens in zip(questions, distinct, strict=True):
        if tuple(question.tokens.tolist()) != tokens:
            raise StudyError(f"prompt {shown(question.prompt.id)}: is not encoded as in its run; trace it again")
    answers = answer_questions(model, questions, batch_size=batch_size, on_answers=on_answers)
    graded = {
        tokens: (Grade.CORRECT if right else Grade.INCORRECT, LIKELIEST)
        if np.isfinite(entropy)
        else (Grade.UNGRADED, "logits not finite")
        for tokens, right, entropy in zip(distinct, answers.correct, answers.entropy, strict=True)
    }
    labels = [(row, *graded[tuple(map(int, row.prompt_tokens))]) for row in rows]
    return [Label(prompt=row.prompt.id, completion=digest(row.text), grade=grade, by=by) for row, grade, by in labels]


def answer_questions(
    model: Model,
    questions: Sequence[ChoiceQuestion],
    masks: Interventions | None = None,
    batch_size: int = 16,
    on_answers: Callable[[int, int], None] = lambda *_: None,
) -> ChoiceAnswers:
    """Return a model's answers; all masks share one compiled program per length.

    Args:
      masks: blocks and heads to ablate; None for the whole model.
      on_answers: callback with the numbers of answers given and in all.
    """
    order = sorted(range(len(questions)), key=lambda i: len(questions[i].tokens))
    batch_size = min(batch_size, len(questions))
    most = max(len(question.options) for question in questions)
    logprobs, entropy = np.zeros((len(questions), most)), np.zeros(len(questions))
    with use_mesh_of(model.params):
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = [questions[i] for i in indices] + [questions[indices[-1]]] * (batch_size - len(indices))
            width = sum(chunk_widths(max(len(question.tokens) for question in batch)))
            tokens, count = chunk([question.tokens for question in batch], width)
            options, _ = chunk([np.array(question.options, np.int32) for question in batch], most)
            results = _read(model.params, tokens, count, options, masks, config=model.config)
            option_logprobs, entropies = (np.asarray(array)[: len(indices)] for array in results)
            logprobs[indices], entropy[indices] = option_logprobs, entropies
            on_answers(start + len(indices), len(order))
    logprobs[np.arange(most) >= np.array([len(question.options) for question in questions])[:, None]] = -np.inf
    correct = (logprobs.argmax(1) == np.array([question.answer for question in questions])) & np.isfinite(entropy)
    return ChoiceAnswers(correct, entr(softmax(logprobs, axis=1)).sum(1), entropy)


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
    """Return log-probabilities of the options after each row's last token, and the entropy there."""
    batch, width = tokens.shape
    cache = empty_cache(config, batch, width, stacked=is_stacked(params), dtype=params["embedding"].dtype)
    start = jnp.zeros(batch, jnp.int32)
    result = forward(config, params, tokens, cache, start, length=count, count=count, interventions=masks)
    last = jnp.take_along_axis(result.hidden, (count - 1)[:, None, None], axis=1)[:, 0]
    logprobs = jax.nn.log_softmax(unembed(config, params, last))
    return jnp.take_along_axis(logprobs, options, axis=1), entropy_of(jnp.exp(logprobs))


def _choice_question(
    model: Model,
    prompt: Prompt,
    tokens: Int[np.ndarray, " P"],
    by: OptionKind,
    settings: PromptSettings,
    chat: bool,
    date: datetime,
) -> ChoiceQuestion:
    place, choices = f"prompt {shown(prompt.id)}", cast(Any, prompt.meta.get("choices"))
    letters = LETTERS[: len(choices)] if isinstance(choices, list) else ""
    right = prompt.meta.get("answer")
    if len(letters) < 2 or right not in [*letters]:
        raise StudyError(f"{place}: has no list of choices, or no answer by its letter; take multiple-choice prompts")
    tokenizer = model.tokenizer
    if tokenizer is None or prompt.tokens is not None:
        raise StudyError(f"{place}: options are texts, and there is no tokenizer; take a model with a tokenizer")

    def encode(text: str) -> EncodedText:
        changed = settings.model_copy(update={"prefix": settings.prefix + text})
        return tokenizer.encode_prompt(prompt, changed, chat=chat, date=date, image_token=model.config.image_token)

    space = "" if encode("").text[-1:].isspace() else " "
    options: list[int] = []
    for option in letters if by == "letter" else choices:
        ids = encode(f"{space}{option}").ids
        if ids[: len(tokens)] != tokens.tolist() or len(ids) == len(tokens):
            raise StudyError(f"{place}: appending {option!r} changes the prompt's own tokens; reword it")
        if by == "letter" and len(ids) > len(tokens) + 1:
            raise StudyError(
                f"{place}: '{space}{option}' is no token of the model's; score the choices' texts, or grade by rules"
            )
        options.append(ids[len(tokens)])
    if len(set(options)) < len(options):
        raise StudyError(f"{place}: two options begin with the same token; score them by letter, or reword")
    return ChoiceQuestion(prompt, tokens, tuple(options), letters.index(right))
