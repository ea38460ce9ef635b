"""Prompts as token ids and image tiles, with errors for prompts that cannot be fed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import jax
import numpy as np

from jaxtrace.checkpoints.images import ImageProcessor, ImageSource, check_image, tile_visibility
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.engine.pool import PromptImages
from jaxtrace.errors import PromptError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.images import Images
from jaxtrace.prompts import Prompt, token_ids

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
    """Return each prompt with its token ids, int32.

    Args:
      prompts: texts, lists of token ids, or `Prompt`s.
      model: name of the model, for error messages.
      config: config of the decoder; its vocabulary and context are checked.
      tokenizer: tokenizer of the model; None if prompts must be ids.
      chat: True formats a text as the first turn of a chat if the tokenizer has a template.
      last_twice: True feeds the last token of each prompt twice.

    Raises:
      PromptError: a prompt is empty, longer than the context, text without a tokenizer, or has an unknown id; or an
        image is unreadable or has no image token.
    """
    _check_list(prompts)
    return [
        _encode(i, _as_prompt(prompt, i), model, config, tokenizer, chat, last_twice)
        for i, prompt in enumerate(prompts)
    ]


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
    pairs = enumerate(zip(prompts, images, strict=True))
    return [_attach(_as_prompt(prompt, i), entry) for i, (prompt, entry) in pairs]


def _check_list(prompts: Sequence[PromptLike]) -> None:
    if isinstance(prompts, str):
        raise PromptError("prompts must be a list; put the one text in brackets")


def _attach(prompt: Prompt, images: ImagesLike) -> Prompt:
    if images is None:
        return prompt
    return dataclasses.replace(prompt, images=tuple(images) if isinstance(images, (list, tuple)) else (images,))


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
        raise PromptError(f"{name}: has images, and {model} sees none; remove them, or name a vision model")
    image_tokens = ids.count(config.image_token) if config.image_token is not None else 0
    if image_tokens != len(prompt.images):
        raise PromptError(
            f"{name}: has {len(prompt.images)} images and {image_tokens} image tokens; "
            f"put one (id {config.image_token}) where each image belongs"
        )
    for image in prompt.images:
        check_image(image)
    known = config.vocab_size + config.extra_tokens
    if bad := [i for i in ids if not 0 <= i < known]:
        raise PromptError(f"{name}: id {bad[0]} is outside the vocabulary of {known}; remove it")
    if len(ids) > config.context:
        raise PromptError(
            f"{name}: has {len(ids)} tokens, and the context of {model} holds {config.context}; shorten it"
        )
    return prompt, np.array(ids, np.int32)


def _as_prompt(prompt: PromptLike, index: int) -> Prompt:
    """Return a prompt whose token ids are integers; raises PromptError."""
    if isinstance(prompt, str):
        return Prompt(text=prompt)
    if not isinstance(prompt, Prompt):
        prompt = Prompt(tokens=cast(tuple[int, ...], prompt))
    if prompt.tokens is None:
        return prompt
    try:
        return dataclasses.replace(prompt, tokens=token_ids(prompt.tokens))
    except ValueError as error:
        raise PromptError(f"prompt {prompt.id or index}: {error}") from None
