"""Encodes prompts to token ids and ids to text, with the checkpoint's tokenizer."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer as Backend

from jaxtrace.checkpoints.chat_template import ChatTemplate
from jaxtrace.checkpoints.control_tokens import ControlTokens, encoding_of
from jaxtrace.documents import MAX_TOKENIZER, read_bytes, read_json
from jaxtrace.errors import CheckpointError, PromptError, first_line
from jaxtrace.files import open_regular
from jaxtrace.prompts import SYSTEM_ROLES, Prompt
from jaxtrace.settings.prompt import PromptSettings, StartMode

FAST, SETTINGS = "tokenizer.json", "tokenizer_config.json"
FILES = (FAST, "tokenizer.model", "vocab.json", "tekken.json")
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # decoders write it for bytes that are no character yet

StartToken = Literal["template", "tokenizer", "setting", "text", "none"]


@dataclass(frozen=True)
class EncodedText:
    """A text as ids.

    Attributes:
      ids: token ids.
      text: text that was encoded: with a chat template, all that the template wrote.
      ends: end of each token in the text, in characters; 0 for a token that the tokenizer added.
      start: origin of the start token: written by the "template", added by the "tokenizer" or by the "setting" bos, or
        part of the "text"; "none" without a start token.
      start_repeated: True if the text begins with the start token that the tokenizer adds, and it was kept once.
      end_dropped: True if the tokenizer ends texts with a token, which was dropped.
      chat: True if the chat template wrote the text.
      plain: control tokens in the text of messages that were encoded as plain text.
    """

    ids: list[int]
    text: str
    ends: list[int]
    start: StartToken
    start_repeated: bool = False
    end_dropped: bool = False
    chat: bool = False
    plain: tuple[str, ...] = ()


@contextmanager
def _rust_errors() -> Iterator[None]:
    """Turn errors of the library tokenizers into CheckpointError.

    It raises Exception itself; a regular expression that backtracks too long, or a wrong field, makes it panic.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is Exception or type(error).__name__ == "PanicException":
            raise CheckpointError(f"the tokenizer fails ({first_line(error)}); download its files again") from None
        raise


class Tokenizer:
    """A tokenizer of the library tokenizers and a chat template, reduced to the operations of tracing.

    Attributes:
      backend: tokenizer as its tokenizer.json describes it, without padding and truncation.
      special_tokens: texts of its special tokens by name, such as "bos_token".
      template: chat template, or None.
    """

    def __init__(
        self, backend: Backend, special_tokens: Mapping[str, str] | None = None, template: ChatTemplate | None = None
    ) -> None:
        backend.no_truncation()
        backend.no_padding()
        self.backend, self.special_tokens, self.template = backend, dict(special_tokens or {}), template
        self._control = ControlTokens(backend)
        added = backend.get_added_tokens_decoder()
        self._special = {i: token.content for i, token in added.items() if token.special}

    @classmethod
    @_rust_errors()
    def load(cls, directory: Path) -> Tokenizer | None:
        """Load the tokenizer of a checkpoint directory; return None for a directory without one.

        A tokenizer.json is read as it is: the class that tokenizer_config.json declares, and the version of
        transformers, do not change the ids. Without one, transformers converts the other files.

        Raises:
          CheckpointError: the tokenizer files cannot be read without running code.
        """
        if not any((directory / name).exists() for name in FILES):
            return None
        if not (directory / FAST).exists():
            return _converted(directory)
        backend = _backend(read_bytes(directory / FAST, MAX_TOKENIZER, CheckpointError, "download it again"), directory)
        settings = _read_settings(directory / SETTINGS)
        names = _read_settings(directory / "special_tokens_map.json")
        named = {**names, **settings} if "added_tokens_decoder" in settings else {**settings, **names}
        return cls(backend, _special_tokens(named), ChatTemplate.read(directory, settings))

    @classmethod
    @_rust_errors()
    def from_files(cls, files: Mapping[str, str], source: str) -> Tokenizer | None:
        """Load a tokenizer from the contents of its files by name, as `load` does; return None without any.

        Args:
          files: contents of tokenizer.json and tokenizer_config.json.
          source: name of the checkpoint, for error messages.

        Raises:
          CheckpointError: the tokenizer or its chat template cannot be read.
        """
        if FAST not in files:
            return None
        backend, settings = _backend(files[FAST].encode(errors="surrogatepass"), source), json.loads(files[SETTINGS])
        return cls(backend, _special_tokens(settings), ChatTemplate.of(settings.get("chat_template"), source))

    @property
    def eos(self) -> int | None:
        """Id of the end-of-sequence token."""
        return self.backend.token_to_id(self.special_tokens.get("eos_token", ""))

    @property
    def bos(self) -> int | None:
        """Id of the start token."""
        text = self.special_tokens.get("bos_token")
        return None if text is None else self.backend.token_to_id(text)

    @property
    def kind(self) -> str:
        """Name of the tokenizer's model and the size of its vocabulary."""
        return f"{type(self.backend.model).__name__}, {self.backend.get_vocab_size():,} tokens"

    @property
    def has_chat_template(self) -> bool:
        """True if prompts can be formatted as turns of a chat."""
        return self.template is not None

    def encode(self, text: str, *, chat: bool, images: int = 0, image_token: int | None = None) -> list[int]:
        """Return the ids of a text with one start token and no end token, or of a chat's first turn up to the answer.

        Args:
          text: text to encode.
          chat: True to format the text as a user's turn, if the checkpoint has a chat template.
          images: number of images that come first, for a text without image tokens.
          image_token: id of the image token.

        Raises:
          PromptError: the checkpoint's chat template fails on the text.
        """
        prompt = Prompt(text=text, images=(None,) * images)
        return self.encode_prompt(prompt, PromptSettings(), chat=chat, image_token=image_token).ids

    @_rust_errors()
    def encode_prompt(
        self,
        prompt: Prompt,
        settings: PromptSettings,
        *,
        chat: bool = True,
        date: datetime | None = None,
        image_token: int | None = None,
    ) -> EncodedText:
        """Encode the text or the messages of a prompt.

        Args:
          prompt: prompt with a text or with messages.
          settings: use of the chat template, and text around the prompt.
          chat: False feeds the text without the chat template, whatever the settings say.
          date: current time for the template; None for now.
          image_token: id of the image token.

        Raises:
          PromptError: the prompt needs a chat template and there is none, a message is malformed, or the template
            fails, has no such argument, omits the system message, or takes too long; or the prompt must begin with a
            start token and the tokenizer has none, or without one and it also marks turns.
          CheckpointError: the tokenizer fails on the text.
        """
        image_text = "" if image_token is None else cast(str, self.backend.id_to_token(image_token))
        mode = settings.chat_mode if chat else "never"
        if mode == "never" or self.template is None:
            needs = "messages" if prompt.messages is not None else next(iter(settings.template_settings), None)
            if needs is not None or mode == "always":
                problem = "the model has none" if mode != "never" else "raw prompts and scored texts use none"
                raise PromptError(f"{needs or 'chat'} needs a chat template, and {problem}; give plain text alone")
            text = (prompt.text or "") + settings.prefix
            return self.encode_text(text, len(prompt.images), image_text, bos=settings.bos)
        messages = self._messages(prompt, settings, image_text)
        encoded = self._encode_chat(messages, settings, self.template, date or datetime.now())
        return encoded if settings.bos == "auto" else self._with_start(encoded, settings.bos)

    @_rust_errors()
    def encode_text(self, text: str, images: int = 0, image_text: str = "", *, bos: StartMode = "auto") -> EncodedText:
        """Encode a text without a chat template: control tokens are parsed, and no end token is fed.

        Args:
          text: text to encode.
          images: number of images that come first, for a text without image tokens.
          image_text: text of the image token; "" if there is none.
          bos: "auto" feeds the tokenizer's start token once if it adds one, "always" one in any case, "never" none.

        Raises:
          PromptError: `bos` is "always", and the tokenizer has no start token.
        """
        if image_text and (images or image_text in text):
            text = text if image_text in text else image_text * images + text
            return self._encode_with_images(text, image_text, bos)
        encoding = encoding_of(self.backend, text, add_special_tokens=True)
        ids, ends = encoding.ids, [end for _, end in encoding.offsets]
        own = [i for i, added in enumerate(encoding.special_tokens_mask) if not added]
        first, last = (own[0], own[-1] + 1) if own else (len(ids), len(ids))
        begin, body = ids[:first] or self._start_ids(bos), first
        while begin and ids[body : body + len(begin)] == begin and body + len(begin) <= last:
            body += len(begin)
        fed = [] if bos == "never" else begin
        start: StartToken = "none"
        if bos != "never":
            start = "tokenizer" if first else "text" if self._starts(ids) else "setting" if fed else "none"
        return EncodedText(
            fed + ids[body:last],
            text,
            [0] * len(fed) + ends[body:last],
            start,
            start_repeated=body > first and bool(fed),
            end_dropped=last < len(ids),
        )

    def _encode_with_images(self, text: str, image_text: str, bos: StartMode) -> EncodedText:
        """Encode a text with image tokens, whose start token stands after the leading images."""
        start = self._start_ids("always" if bos == "always" else "never")
        if bos != "never":
            text = self._start_after_images(text, image_text)
        encoding = encoding_of(self.backend, text)
        kept = [i for i, token in enumerate(encoding.ids) if bos != "never" or token not in start]
        origin = "tokenizer" if start and bos != "never" else "none"
        return EncodedText([encoding.ids[i] for i in kept], text, [encoding.offsets[i][1] for i in kept], origin)

    def _start_ids(self, bos: StartMode) -> list[int]:
        """Return the start token that a setting puts before a text or takes from it; [] for "auto", or without one."""
        if bos == "always" and self.bos is None:
            raise PromptError("bos is 'always', and the tokenizer has no start token; use bos 'auto' or 'never'")
        return [] if bos == "auto" or self.bos is None else [self.bos]

    def _with_start(self, chat: EncodedText, bos: StartMode) -> EncodedText:
        """Return a chat with exactly one start token, or with none."""
        start, ids, text = self._start_ids(bos), chat.ids, chat.text
        mark = self.special_tokens.get("bos_token", "")
        while start and ids[:1] == start:
            ids, text = ids[1:], text.removeprefix(mark)
        if bos == "always":
            origin: StartToken = "template" if len(ids) < len(chat.ids) else "setting"
            return replace(chat, ids=start + ids, text=mark + text, start=origin)
        if len(ids) < len(chat.ids) and start[0] in ids:
            raise PromptError(
                f"bos is 'never', and the chat template marks turns with the start token {mark!r}; use bos 'auto', or "
                "no chat template"
            )
        return replace(chat, ids=ids, text=text, start="none")

    def _encode_chat(
        self, messages: list[dict[str, Any]], settings: PromptSettings, template: ChatTemplate, date: datetime
    ) -> EncodedText:
        content = [messages, settings.prefix]

        def render(content: Any) -> str:
            messages, prefix = content
            return template.render(messages, self.special_tokens, settings.template_arg or {}, date) + prefix

        text, plain = render(content), () if settings.allow_special else tuple(self._control.found_in(content))
        for number, message in enumerate(messages):
            system = message.get("content") if message["role"] in SYSTEM_ROLES else None
            if not isinstance(system, str) or not system.strip():
                continue
            other = {**message, "content": f"{system}x"}
            if render([[*messages[:number], other, *messages[number + 1 :]], settings.prefix]) == text:
                raise PromptError("the chat template omits the system message; put its text into the prompt")
        if plain:
            text, ids = self._control.encode(content, render)
        else:
            ids = encoding_of(self.backend, text).ids
        return EncodedText(ids, text, [], "template" if self._starts(ids) else "none", chat=True, plain=plain)

    def _messages(self, prompt: Prompt, settings: PromptSettings, image_text: str) -> list[dict[str, Any]]:
        """Return the messages of a prompt, checked, with the system message of the settings."""
        if prompt.messages is None:
            content: Any = prompt.text or ""
            if prompt.images and image_text:
                pieces = re.split(f"({re.escape(image_text)})", content)
                ahead = [] if len(pieces) > 1 else [{"type": "image"}] * len(prompt.images)
                content = ahead + [
                    {"type": "image"} if piece == image_text else {"type": "text", "text": piece}
                    for piece in pieces
                    if piece
                ]
            messages = [{"role": "user", "content": content}]
        else:
            messages = _checked(prompt.messages)
        if settings.system is None:
            return messages
        if messages[0]["role"] in SYSTEM_ROLES:
            raise PromptError("has a system message, and the settings give another (--system); drop one of them")
        return [{"role": "system", "content": settings.system}, *messages]

    def _starts(self, ids: Sequence[int]) -> bool:
        """Return True if ids begin with the start token."""
        return bool(ids) and ids[0] == self.bos

    def _start_after_images(self, text: str, image_text: str) -> str:
        """Insert the start token after the leading images, as in the training of Llama 3.2 Vision."""
        start = self.special_tokens.get("bos_token", "")
        if start in text:
            return text
        words = text
        while words.startswith(image_text):
            words = words.removeprefix(image_text)
        return text.removesuffix(words) + start + words

    def decode(self, ids: Int[np.ndarray, " n"]) -> str:
        """Return the text of ids, without special tokens and without any clean-up of spaces."""
        return self.join(ids, self.pieces(ids))

    def join(self, ids: Int[np.ndarray, " n"], pieces: Sequence[str]) -> str:
        """Return the text of ids from the pieces that they add, without the pieces of special tokens."""
        return "".join(piece for i, piece in zip(ids, pieces, strict=True) if int(i) not in self._special)

    @_rust_errors()
    def pieces(self, ids: Int[np.ndarray, " n"]) -> tuple[str, ...]:
        """Return the text that each id adds, special tokens included; "" while a character is incomplete."""
        visible = iter(self._visible_pieces([i for i in map(int, ids) if i not in self._special]))
        return tuple(self._special[int(i)] if int(i) in self._special else next(visible) for i in ids)

    def _visible_pieces(self, ids: list[int]) -> list[str]:
        pieces: list[str] = []
        # The window holds the previous piece too: decoders write a token differently at the beginning of a text.
        first, done, before = 0, 0, ""
        for end in range(1, len(ids) + 1):
            text = self.backend.decode(ids[first:end])
            if text.endswith(INCOMPLETE) and end < len(ids):
                pieces.append("")
                continue
            current = self.backend.decode(ids[done:end])
            # Bytes that make the characters before them invalid are decoded alone.
            pieces.append(text[len(before) :] if text.startswith(before) else current)
            first, done, before = done, end, current
        return pieces


def _backend(content: bytes, source: Path | str) -> Backend:
    try:
        return Backend.from_buffer(content)
    except Exception as error:  # tokenizers raises Exception itself
        raise CheckpointError(
            f"{source}: the tokenizer cannot be read ({first_line(error)}); download its files again"
        ) from None


def _converted(directory: Path) -> Tokenizer:
    """Convert a tokenizer without tokenizer.json by transformers."""
    _check_files(directory)
    names = [name for name in FILES if (directory / name).exists()]
    if names == ["tekken.json"]:
        raise CheckpointError(
            f"{directory}: has tekken.json, Mistral's own format, and no tokenizer.json; add the latter from the hub"
        )
    if names[0] == "tokenizer.model":
        with open_regular(directory / names[0]) as file:
            package = "sentencepiece" if file.read(1) == b"\n" else "tiktoken"
        if importlib.util.find_spec(package) is None:
            raise CheckpointError(
                f"{directory}: to read tokenizer.model needs the package {package}; pip install {package} protobuf, or "
                "add a tokenizer.json"
            )
    from transformers import AutoTokenizer  # takes seconds where torch is installed

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises whatever its parsers raise
        raise CheckpointError(
            f"{directory}: the tokenizer cannot be read ({first_line(error)}); download its files again"
        ) from None
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(f"{directory}: the tokenizer has no fast form; save it with a tokenizer.json")
    settings = _read_settings(directory / SETTINGS)
    return Tokenizer(
        tokenizer.backend_tokenizer,
        _special_tokens(tokenizer.special_tokens_map),
        ChatTemplate.read(directory, settings),
    )


def _check_files(directory: Path) -> None:
    """Raise CheckpointError for a file that transformers would not finish to read."""
    for pattern in ("*.json", "*.jinja", "*.model", "*.txt"):
        for path in directory.glob(pattern):
            read_bytes(path, MAX_TOKENIZER, CheckpointError, "download it again")


def _read_settings(path: Path) -> dict[str, Any]:
    return read_json(path, CheckpointError, "download it again", finite=False) if path.exists() else {}


def _special_tokens(named: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of special tokens by name from the content of tokenizer_config.json."""
    extra = named.get("extra_special_tokens")
    named = {**(extra if isinstance(extra, dict) else {}), **named}
    texts = {
        name: token.get("content") if isinstance(token, dict) else token
        for name, token in named.items()
        if name.endswith("_token")
    }
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _checked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a copy of messages without null fields; raise PromptError for one that no template can format."""
    try:
        copy = json.loads(json.dumps(list(messages), allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise PromptError(f"a message holds what JSON cannot ({error}); give texts, numbers, lists and dicts") from None
    if not copy:
        raise PromptError("has no messages; give at least one")
    checked: list[dict[str, Any]] = []
    for number, message in enumerate(copy):
        if not isinstance(message, dict):
            raise PromptError(f'message {number} is {message!r}; write {{"role": "user", "content": "…"}}')
        message = {key: value for key, value in message.items() if value is not None}
        role = message.get("role")
        if not isinstance(role, str) or not re.fullmatch(r"[\w-]+", role):
            raise PromptError(f"message {number} has the role {role!r}; name one, such as system, user or assistant")
        if not isinstance(message.get("content", ""), str | list):
            raise PromptError(f"message {number} has the content {message['content']!r}; give a text")
        if "content" not in message and len(message) == 1:
            raise PromptError(f"message {number} has no content; give a text")
        checked.append(message)
    if checked[-1]["role"] == "assistant":
        raise PromptError(
            "the last message is the assistant's; end with the user's, and give the answer's beginning as prefix "
            "(--prefix)"
        )
    return checked
