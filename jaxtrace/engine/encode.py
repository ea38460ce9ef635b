"""Prompts as token ids and image tiles, with errors for prompts that cannot be fed."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import jax
import numpy as np

from jaxtrace.checkpoints.images import ImageProcessor, ImageSource, check_image, tile_visibility
from jaxtrace.checkpoints.tokenizer import EncodedText, Tokenizer
from jaxtrace.engine.pool import PromptImages
from jaxtrace.errors import PromptError, few, one_line, shown
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.images import Images
from jaxtrace.prompts import Prompt, token_ids
from jaxtrace.settings.prompt import PromptSettings

LONGEST_TOKEN = 64  # mean characters of a token, above which a text is refused without being encoded

PromptLike = str | Sequence[int] | Sequence[Mapping[str, Any]] | Prompt
ImagesLike = ImageSource | Sequence[ImageSource] | None


class EncodedPrompts(list[tuple[Prompt, np.ndarray]]):
    """Prompts, each with its token ids, int32.

    Attributes:
      info: description of how the prompts were made, as `Trace.info` stores it under "prompt_format".
    """

    info: dict[str, Any]


def encode(
    prompts: Sequence[PromptLike],
    model: str,
    config: DecoderConfig,
    tokenizer: Tokenizer | None,
    settings: PromptSettings | None = None,
    *,
    chat: bool = True,
    last_twice: bool = False,
    date: datetime | None = None,
) -> EncodedPrompts:
    """Return each prompt with its token ids; warn once where control tokens of a prompt are not fed as such.

    Args:
      prompts: texts, lists of messages, lists of token ids, or `Prompt`s.
      model: name of the model, for error messages.
      config: config of the decoder; its vocabulary and context are checked.
      tokenizer: tokenizer of the model; None if prompts must be ids.
      settings: use of the chat template, and text around the prompts; None for the defaults.
      chat: False feeds texts without the chat template, whatever the settings say.
      last_twice: True feeds the last token of each prompt twice.
      date: current time for the chat template; None for now.

    Raises:
      PromptError: a prompt is empty, longer than the context, text without a tokenizer, or has an unknown id; a message
        or the chat template is unusable; or an image is unreadable or has no image token.
    """
    _check_list(prompts)
    settings, date = settings or PromptSettings(), date or datetime.now()
    encoded, texts = EncodedPrompts(), list[EncodedText]()
    for index, prompt in enumerate(prompts):
        name = f"prompt {(isinstance(prompt, Prompt) and prompt.id) or index}"
        try:
            prompt = _as_prompt(prompt)
            _check_storable(prompt)
            ids = list(prompt.tokens or ())
            if prompt.tokens is None:
                texts.append(_encode_text(prompt, model, config, tokenizer, settings, chat, date))
                ids = texts[-1].ids
            elif unused := settings.text_settings + settings.template_settings * chat:
                raise PromptError(f"is given as token ids, which {unused[0]} cannot change; drop it, or give text")
            encoded.append((prompt, _checked_ids(prompt, ids, model, config, last_twice)))
        except PromptError as error:
            raise PromptError(f"{shown(name)}: {error}") from None
    encoded.info = _describe(texts, tokenizer, settings, date)
    _warn(model, texts)
    return encoded


def with_images(prompts: Sequence[PromptLike], images: Sequence[ImagesLike] | None) -> Sequence[PromptLike]:
    """Attach images to prompts; an entry of None keeps the prompt's own images.

    Raises:
      PromptError: the number of entries differs from the number of prompts.
    """
    _check_list(prompts)
    if images is None:
        return prompts
    if isinstance(images, ImageSource) or len(images) != len(prompts):
        raise PromptError("images must be a list with one entry for each prompt: an image, a list of images, or None")
    return [_attach(_as_prompt(prompt), entry) for prompt, entry in zip(prompts, images, strict=True)]


def _check_list(prompts: Sequence[PromptLike]) -> None:
    if isinstance(prompts, str):
        raise PromptError("prompts must be a list; put the one text in brackets")


def _attach(prompt: Prompt, images: ImagesLike) -> Prompt:
    if images is None:
        return prompt
    return dataclasses.replace(prompt, images=tuple(images) if isinstance(images, (list, tuple)) else (images,))


def check_prompt_lengths(prompt_lengths: Sequence[int] | None, texts: Sequence[tuple[Prompt, np.ndarray]]) -> None:
    """Raise PromptError unless each text has a number of prompt tokens, from 0 to its own number of tokens."""
    if prompt_lengths is None:
        return
    if len(prompt_lengths) != len(texts):
        raise PromptError(f"prompt_lengths has {len(prompt_lengths)} entries for {len(texts)} texts; give one for each")
    for number, (length, (_, tokens)) in enumerate(zip(prompt_lengths, texts, strict=True)):
        if not (isinstance(length, int | np.integer) and 0 <= length <= len(tokens)):
            raise PromptError(
                f"prompt_lengths: entry {number} is {shown(length)}; text {number} has {len(tokens)} tokens, so give a "
                f"whole number from 0 to {len(tokens)}"
            )


def load_prompt_images(
    processor: ImageProcessor, config: DecoderConfig, prompt: Prompt, tokens: np.ndarray, most: int
) -> PromptImages:
    """Read the images of a prompt and cut them into tiles, padded with empty images to `most`."""
    assert config.vision is not None and config.image_token is not None
    tiles, size = config.vision.max_tiles, config.vision.image_size
    padded: Any = (
        np.zeros((most, tiles, config.vision.channels, size, size), np.float32),
        np.zeros(most, np.int32),
        np.zeros((most, tiles), bool),
    )
    images = Images(*padded)
    counts: list[int] = []
    if prompt.images:
        processed, (counts,) = processor([prompt.images])
        for target, values in zip(jax.tree.leaves(images), jax.tree.leaves(processed), strict=True):
            target[: len(counts)] = values[0]
    visible = tile_visibility(tokens.tolist(), counts, most, tiles, config.image_token)
    return PromptImages(images, visible)


def _encode_text(
    prompt: Prompt,
    model: str,
    config: DecoderConfig,
    tokenizer: Tokenizer | None,
    settings: PromptSettings,
    chat: bool,
    date: datetime,
) -> EncodedText:
    if tokenizer is None:
        raise PromptError(f"{model} has no tokenizer; give lists of token ids instead of text")
    if prompt.messages is None and not (prompt.text or "").strip():
        raise PromptError("is empty; give it some text")
    try:
        "".join((prompt.text or "", settings.system or "", settings.prefix)).encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"is no Unicode text ({error.reason}); save it as UTF-8") from None
    turns = (
        [prompt.text]
        if prompt.messages is None
        else [turn.get("content") for turn in prompt.messages if isinstance(turn, Mapping)]
    )
    length = sum(len(text) for text in (*turns, settings.system, settings.prefix) if isinstance(text, str))
    if length > LONGEST_TOKEN * config.context:
        raise PromptError(
            f"has {length:,} characters, and the context of {model} holds {config.context} tokens; shorten it"
        )
    return tokenizer.encode_prompt(prompt, settings, chat=chat, date=date, image_token=config.image_token)


def _check_storable(prompt: Prompt) -> None:
    """Raise PromptError for a text that is none, and for metadata that a trace could not store as JSON."""
    if not isinstance(prompt.text, str | None):
        raise PromptError(f"is {prompt.text!r:.60}, not a text; give a text")
    try:
        json.dumps((prompt.id, prompt.meta), ensure_ascii=False, default=lambda array: array.tolist()).encode()
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PromptError(f"has an id or metadata that JSON cannot hold ({error}); give texts and numbers") from None


def _checked_ids(prompt: Prompt, ids: list[int], model: str, config: DecoderConfig, last_twice: bool) -> np.ndarray:
    if not ids:
        raise PromptError("is empty; give it at least one token")
    ids = ids + ids[-1:] * last_twice
    if prompt.images and config.vision is None:
        raise PromptError(f"has images, and {model} sees none; remove them, or name a vision model")
    image_tokens = ids.count(config.image_token) if config.image_token is not None else 0
    if image_tokens != len(prompt.images):
        raise PromptError(
            f"has {len(prompt.images)} images and {image_tokens} image tokens; "
            f"put one (id {config.image_token}) where each image belongs"
        )
    for image in prompt.images:
        check_image(image)
    known = config.vocab_size + config.extra_tokens
    if bad := [i for i in ids if not 0 <= i < known]:
        raise PromptError(f"id {bad[0]} is outside the vocabulary of {known}; remove it")
    if len(ids) > config.context:
        raise PromptError(f"has {len(ids)} tokens, and the context of {model} holds {config.context}; shorten it")
    return np.array(ids, np.int32)


def _describe(
    texts: Sequence[EncodedText], tokenizer: Tokenizer | None, settings: PromptSettings, date: datetime
) -> dict[str, Any]:
    """Return how prompts were made: what a run stores once."""
    template = tokenizer.template if tokenizer is not None and any(text.chat for text in texts) else None
    clock = template is not None and template.reads_clock
    return {
        "template": None if template is None else template.hash,
        "template_arg": settings.template_arg or {},
        "date": date.isoformat(timespec="seconds") if clock else None,
        "bos": settings.bos,
        "start_token": texts[0].start if texts else "none",
        "rendered": texts[0].text if texts else None,
        "plain_control_tokens": _plain(texts),
    }


def _plain(texts: Sequence[EncodedText]) -> list[str]:
    return sorted({token for text in texts for token in text.plain})


def _warn(model: str, texts: Sequence[EncodedText]) -> None:
    """Warn about control tokens of prompts that are not fed as such, once for all prompts."""
    notes = []
    if count := sum(bool(text.plain) for text in texts):
        notes.append(
            f"{count} of {len(texts)} prompts contain control tokens in their text "
            f"({few(_plain(texts), most=3)}), fed as plain text; allow_special (--allow-special) parses them"
        )
    if count := sum(text.start_repeated for text in texts):
        notes.append(f"{count} of {len(texts)} prompts begin with the start token, which is fed once")
    if any(text.end_dropped for text in texts):
        notes.append("the tokenizer ends texts with a token, which is not fed after a prompt")
    for note in notes:
        warnings.warn(one_line(f"{model}: {note}"), stacklevel=3)


def _as_prompt(prompt: PromptLike) -> Prompt:
    """Return a prompt whose token ids are integers; raises PromptError."""
    if isinstance(prompt, str):
        return Prompt(text=prompt)
    if isinstance(prompt, Mapping):
        raise PromptError("is one message; give a list of messages")
    if not isinstance(prompt, Prompt):
        if isinstance(prompt, Sequence) and len(prompt) and isinstance(prompt[0], Mapping):
            messages = cast(tuple[dict[str, Any], ...], tuple(prompt))
            text = isinstance(messages[-1], Mapping) and messages[-1].get("content")
            return Prompt(text=text if isinstance(text, str) else None, messages=messages)
        prompt = Prompt(tokens=cast(tuple[int, ...], prompt))
    if prompt.tokens is None:
        return prompt
    try:
        return dataclasses.replace(prompt, tokens=token_ids(prompt.tokens))
    except ValueError as error:
        raise PromptError(str(error)) from None
