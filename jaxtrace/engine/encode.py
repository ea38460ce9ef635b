"""Prompts to token ids, and the refusal of those that cannot be fed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxtrace.checkpoints.images import ImageProcessor, ImageSource, check_image, tile_visibility
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.engine.pool import Looked
from jaxtrace.errors import PromptError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.images import Images
from jaxtrace.prompts import Prompt

PromptLike = str | Sequence[int] | Prompt
ImagesLike = ImageSource | Sequence[ImageSource] | None


def encode(
    prompts: Sequence[PromptLike],
    model: str,
    config: DecoderConfig,
    tokenizer: Tokenizer | None,
    *,
    chat: bool,
    last_twice: bool = False,
) -> list[tuple[Prompt, np.ndarray]]:
    """Prompts beside their token ids, int32.

    Args:
      prompts: texts, lists of token ids, or `Prompt`s.
      model: its name, for messages.
      config: of its decoder, for the vocabulary and the context.
      tokenizer: None where prompts must be ids.
      chat: put texts as a chat's first turn where the tokenizer has a template.
      last_twice: the last token of each is fed twice.

    Raises:
      PromptError: a prompt is empty, longer than the context, text without a tokenizer, has an unknown id, or an image
        that cannot be read or has no place in it.
    """
    _check_list(prompts)
    given = [_as_prompt(prompt) for prompt in prompts]
    return [_encode(i, prompt, model, config, tokenizer, chat, last_twice) for i, prompt in enumerate(given)]


def with_images(prompts: Sequence[PromptLike], images: Sequence[ImagesLike] | None) -> Sequence[PromptLike]:
    """Prompts with the images that belong to each, None leaving what a prompt has of its own.

    Raises:
      PromptError: there are more or fewer entries than prompts.
    """
    _check_list(prompts)
    if images is None:
        return prompts
    if isinstance(images, ImageSource) or len(images) != len(prompts):
        raise PromptError("images must be a list with one entry for each prompt: an image, a list of images, or None")
    pairs = zip(prompts, images, strict=True)
    return [_with_images(_as_prompt(prompt), some) for prompt, some in pairs]


def _check_list(prompts: Sequence[PromptLike]) -> None:
    if isinstance(prompts, str):
        raise PromptError("prompts must be a list; put the one text in brackets")


def _with_images(prompt: Prompt, images: ImagesLike) -> Prompt:
    if images is None:
        return prompt
    several = tuple(images) if isinstance(images, (list, tuple)) else (images,)
    return dataclasses.replace(prompt, images=several)


def looked(processor: ImageProcessor, config: DecoderConfig, prompt: Prompt, tokens: np.ndarray, most: int) -> Looked:
    """The images of a prompt, filled up to `most` with empty ones."""
    assert config.vision is not None and config.image_token is not None
    tiles, size = config.vision.max_tiles, config.vision.image_size
    blank: Any = (
        np.zeros((most, tiles, config.vision.channels, size, size), np.float32),
        np.zeros(most, np.int32),
        np.zeros((most, tiles), bool),
    )
    images = Images(*blank)
    counts: list[int] = []
    if prompt.images:
        found, (counts,) = processor([prompt.images])
        for empty, some in zip(jax.tree.leaves(images), jax.tree.leaves(found), strict=True):
            empty[: len(counts)] = some[0]
    visible = tile_visibility(tokens.tolist(), counts, most, tiles, config.image_token)
    return Looked(images, visible)


def _encode(
    index: int,
    prompt: Prompt,
    model: str,
    config: DecoderConfig,
    tokenizer: Tokenizer | None,
    chat: bool,
    last_twice: bool,
) -> tuple[Prompt, np.ndarray]:
    name = f"prompt {prompt.id or index}"
    if prompt.tokens is not None:
        ids = list(prompt.tokens)
    elif tokenizer is None:
        raise PromptError(f"{name}: {model} has no tokenizer; give lists of token ids instead of text")
    elif not (prompt.text or "").strip():
        raise PromptError(f"{name}: is empty; give it some text")
    else:
        ids = tokenizer.encode(prompt.text or "", chat=chat, images=len(prompt.images), image_token=config.image_token)
    if not ids:
        raise PromptError(f"{name}: is empty; give it at least one token")
    ids += ids[-1:] * last_twice
    if prompt.images and config.vision is None:
        raise PromptError(f"{name}: has images, and {model} sees none; leave them out, or name a vision model")
    marks = ids.count(config.image_token) if config.image_token is not None else 0
    if marks != len(prompt.images):
        raise PromptError(
            f"{name}: has {len(prompt.images)} images and {marks} image tokens; "
            f"put one (id {config.image_token}) where each image belongs"
        )
    for image in prompt.images:
        check_image(image)
    known = config.vocab + config.extra_tokens
    if bad := [i for i in ids if not 0 <= i < known]:
        raise PromptError(f"{name}: id {bad[0]} is outside the vocabulary of {known}; leave it out")
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
