"""Encodes text to token ids and back, with the checkpoint's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Int
from tokenizers.decoders import DecodeStream

from jaxtrace.errors import CheckpointError, PromptError, first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


class Tokenizer:
    """A Hugging Face fast tokenizer, reduced to the operations of tracing."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.hf = tokenizer

    @classmethod
    def load(cls, directory: Path) -> Tokenizer | None:
        """Load the tokenizer of a checkpoint directory; return None for a directory without one.

        Raises:
          CheckpointError: the tokenizer files cannot be read without running code.
        """
        if not any((directory / name).exists() for name in FILES):
            return None
        from transformers import AutoTokenizer  # takes seconds where torch is installed

        try:
            tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # transformers raises whatever its parsers raise
            raise CheckpointError(
                f"{directory}: the tokenizer cannot be read ({first_line(error)}); download its files again"
            ) from None
        if not tokenizer.is_fast:
            raise CheckpointError(f"{directory}: the tokenizer has no fast form; save it with a tokenizer.json")
        return cls(tokenizer)

    @property
    def eos(self) -> int | None:
        """Id of the end-of-sequence token."""
        return cast(int | None, self.hf.eos_token_id)

    @property
    def has_chat_template(self) -> bool:
        """True if prompts can be formatted as a user's turn."""
        return self.hf.chat_template is not None

    def encode(self, text: str, *, chat: bool, images: int = 0, image_token: int | None = None) -> list[int]:
        """Return the ids of a text with the tokenizer's special tokens, or of a chat's first turn up to the answer.

        Args:
          text: text to encode.
          chat: True to format the text as a user's turn, if the checkpoint has a chat template.
          images: number of images that come first, for a text without image tokens.
          image_token: id of the image token.

        Raises:
          PromptError: the checkpoint's chat template fails on the text.
        """
        image_text = "" if image_token is None else cast(str, self.hf.convert_ids_to_tokens(image_token))
        ahead = 0 if image_text in text else images
        if not (chat and self.has_chat_template):
            has_images = image_text != "" and (ahead > 0 or image_text in text)
            if has_images:
                text = self._start_after_images(image_text * ahead + text, image_text)
            # verbose=False silences a warning about long texts, which the caller refuses
            return self.hf.encode(text, add_special_tokens=not has_images, verbose=False)
        content = [*[{"type": "image"}] * ahead, {"type": "text", "text": text}] if ahead else text
        turns = [{"role": "user", "content": content}]
        try:
            formatted = cast(str, self.hf.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        except Exception as error:  # a template is a program of the checkpoint's author
            raise PromptError(f"the chat template fails ({first_line(error)}); use raw prompts (--raw)") from None
        return self.hf.encode(formatted, add_special_tokens=False, verbose=False)

    def _start_after_images(self, text: str, image_text: str) -> str:
        """Insert the start token after the leading images, as in the training of Llama 3.2 Vision."""
        start = str(self.hf.bos_token or "")
        if start in text:
            return text
        words = text
        while words.startswith(image_text):
            words = words.removeprefix(image_text)
        return text.removesuffix(words) + start + words

    def decode(self, ids: Int[np.ndarray, " n"]) -> str:
        """Return the text of ids, without special tokens."""
        return cast(str, self.hf.decode(ids.tolist(), skip_special_tokens=True))

    def join(self, ids: Int[np.ndarray, " n"], pieces: Sequence[str]) -> str:
        """Return the text of ids from the pieces that they add, without the pieces of special tokens."""
        special = {i for i, token in self.hf.added_tokens_decoder.items() if token.special}
        return "".join(piece for i, piece in zip(ids, pieces, strict=True) if int(i) not in special)

    def pieces(self, ids: Int[np.ndarray, " n"]) -> tuple[str, ...]:
        """Return the text that each id adds, special tokens included; "" while a character is incomplete."""
        stream = DecodeStream(skip_special_tokens=False)
        backend: Any = self.hf.backend_tokenizer
        pieces = []
        for i in ids:
            try:
                piece = stream.step(backend, int(i))
            except Exception:  # the stream cannot continue after invalid UTF-8, so a new one starts
                stream = DecodeStream(skip_special_tokens=False)
                piece = stream.step(backend, int(i))
            pieces.append(piece or "")
        return tuple(pieces)
