"""Text to token ids and back, by the checkpoint's own tokenizer."""

from __future__ import annotations

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
    """A Hugging Face fast tokenizer, reduced to what tracing needs."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.hf = tokenizer

    @classmethod
    def load(cls, directory: Path) -> Tokenizer | None:
        """The tokenizer of a checkpoint directory, or None where it has none.

        Raises:
          CheckpointError: there are tokenizer files, and they cannot be read without running code.
        """
        if not any((directory / name).exists() for name in FILES):
            return None
        from transformers import AutoTokenizer  # takes seconds where torch is installed

        try:
            tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # transformers raises whatever its parsers raise
            raise CheckpointError(f"{directory}: the tokenizer cannot be read ({first_line(error)})") from None
        if not tokenizer.is_fast:
            raise CheckpointError(f"{directory}: the tokenizer has no fast form; save it with a tokenizer.json")
        return cls(tokenizer)

    @property
    def eos(self) -> int | None:
        """The end-of-sequence id."""
        return cast(int | None, self.hf.eos_token_id)

    @property
    def has_chat_template(self) -> bool:
        """Whether prompts can be put as a user's turn."""
        return self.hf.chat_template is not None

    def encode(self, text: str, *, chat: bool, images: int = 0, image_token: int | None = None) -> list[int]:
        """Ids of a text with the tokenizer's special tokens, or of a chat's first turn up to the answer.

        Args:
          text: the text.
          chat: put it as a user's turn where there is a chat template.
          images: how many images come first, where the text does not say itself where they belong.
          image_token: the id that stands for an image.

        Raises:
          PromptError: the checkpoint's chat template fails on the text.
        """
        mark = "" if image_token is None else cast(str, self.hf.convert_ids_to_tokens(image_token))
        ahead = 0 if mark in text else images
        if not (chat and self.has_chat_template):
            seeing = mark != "" and (ahead > 0 or mark in text)
            if seeing:
                text = self._after_images(mark * ahead + text, mark)
            # `verbose`: its word about long texts, which the caller refuses
            return self.hf.encode(text, add_special_tokens=not seeing, verbose=False)
        content = [*[{"type": "image"}] * ahead, {"type": "text", "text": text}] if ahead else text
        turns = [{"role": "user", "content": content}]
        try:
            filled = cast(str, self.hf.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        except Exception as error:  # a template is a program of the checkpoint's author
            raise PromptError(f"the chat template fails ({first_line(error)}); use raw prompts (--raw)") from None
        return self.hf.encode(filled, add_special_tokens=False, verbose=False)

    def _after_images(self, text: str, mark: str) -> str:
        """The text with its start put after the images that lead it, as Llama 3.2 Vision was trained."""
        start = str(self.hf.bos_token or "")
        if start in text:
            return text
        rest = text
        while rest.startswith(mark):
            rest = rest.removeprefix(mark)
        return text.removesuffix(rest) + start + rest

    def decode(self, ids: Int[np.ndarray, " n"]) -> str:
        """Text of ids without special tokens."""
        return cast(str, self.hf.decode(ids.tolist(), skip_special_tokens=True))

    def pieces(self, ids: Int[np.ndarray, " n"]) -> tuple[str, ...]:
        """What each id adds to the text, special tokens shown; "" where a character is not complete yet."""
        stream = DecodeStream(skip_special_tokens=False)
        backend: Any = self.hf.backend_tokenizer
        pieces = []
        for i in ids:
            try:
                piece = stream.step(backend, int(i))
            except Exception:  # bytes that are no character: the stream gives up, and a new one goes on
                stream = DecodeStream(skip_special_tokens=False)
                piece = stream.step(backend, int(i))
            pieces.append(piece or "")
        return tuple(pieces)
