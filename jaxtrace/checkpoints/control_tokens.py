"""Control tokens: those that a chat template writes are parsed, those in the text of messages are plain text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenizers import Encoding, Tokenizer

from jaxtrace.errors import PromptError

Spans = list[tuple[int, int, int]]  # (token id, start, end) of tokens in a text
UNKNOWN = "\U000fffff"  # a noncharacter: the unknown token, if the tokenizer has one
STRUCTURE = ("role", "type")  # fields of a message that templates compare; a word there cannot pass for markup


def encoding_of(backend: Tokenizer, text: str, *, add_special_tokens: bool = False) -> Encoding:
    """Return a text's encoding.

    A checkpoint's regular expressions may take long on a text. Of the library's functions only those of batches let
    other threads run meanwhile, so that Ctrl-C ends the program.
    """
    return backend.encode_batch([text], add_special_tokens=add_special_tokens)[0]


class ControlTokens:
    """The added tokens of a tokenizer, special or not, except those of white space, which cannot pass for markup."""

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        self.texts = {i: token.content for i, token in added.items() if not token.content.isspace()}
        self._unknown = set(encoding_of(backend, UNKNOWN).ids)
        self._plain: tuple[str, Tokenizer, dict[int, int]] | None = None

    def find(self, text: str) -> Spans:
        """Return the control tokens that the tokenizer finds in a text, in order."""
        encoding = encoding_of(self._backend, text)
        return [
            (i, start, stop)
            for i, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
            if i in self.texts and (i not in self._unknown or self.texts[i] in text[start:stop])
        ]

    def found_in(self, value: Any) -> list[str]:
        """Return the texts of the control tokens in all texts of messages, each once."""
        found: dict[str, None] = {}

        def note(text: str) -> str:
            found.update((self.texts[i], None) for i, _, _ in self.find(text))
            return text

        _map_texts(note, value)
        return list(found)

    def encode(self, messages: Any, render: Callable[[Any], str]) -> tuple[str, list[int]]:
        """Return the text of messages and its ids; control tokens of the messages become plain text.

        The template runs twice: on the messages, and on messages whose control tokens stand between two markers, which
        tell the template's own tokens from theirs. Where a template compares or cuts control tokens so that the markers
        change its text, the second text is used, without markers: no template then sees a control token of a message.

        Args:
          messages: messages of a chat.
          render: chat template, as a function of the messages.

        Raises:
          PromptError: the tokenizer changes private characters, so that its control tokens cannot be distinguished.
        """
        text = render(messages)
        begin, end = _unused(text + json.dumps(messages, ensure_ascii=False), 2)
        tokens: set[str] = set()
        marked = render(_map_texts(lambda text: self._marked(text, begin, end, tokens), messages))
        plain, in_messages = _without_markers(marked, begin, end, tokens)
        spans = self.find(plain)
        of_template = [not any(a < stop and start < b for a, b in in_messages) for _, start, stop in spans]
        own = self.find(text)
        if "".join(plain.split()) == "".join(text.split()) and [s[0] for s in own] == [s[0] for s in spans]:
            plain, spans = text, own
        return plain, self._encode_apart(
            plain, [span for span, parsed in zip(spans, of_template, strict=True) if parsed]
        )

    def _marked(self, text: str, begin: str, end: str, tokens: set[str]) -> str:
        """Return a text with markers around its control tokens, and add their texts to `tokens`."""
        for _, start, stop in reversed(self.find(text)):
            tokens.add(text[start:stop])
            text = f"{text[:start]}{begin}{text[start:stop]}{end}{text[stop:]}"
        return text

    def _encode_apart(self, text: str, parsed: Spans) -> list[int]:
        """Return the ids of a text in which only the given spans are control tokens."""
        marker = _unused(text, 1)[0]
        if self._plain is None or self._plain[0] in text:
            self._plain = (marker, *self._with_names(marker))
        marker, backend, ids = self._plain
        for i, start, stop in reversed(parsed):
            token = self.texts[i] if self.texts[i] in text[start:stop] else text[start:stop]  # without spaces beside it
            text = text[:start] + text[start:stop].replace(token, _name(marker, i)) + text[stop:]
        encoded = [ids.get(i, i) for i in encoding_of(backend, text).ids]
        expected = [i for i, _, _ in parsed if i not in self._unknown]
        if [i for i in encoded if i in expected] != expected:
            raise PromptError(
                "control tokens in the text cannot be told from the chat template's; remove them, or parse them with "
                "allow_special (--allow-special)"
            )
        return encoded

    def _with_names(self, marker: str) -> tuple[Tokenizer, dict[int, int]]:
        """Return the tokenizer with other names for its control tokens, and its ids → the tokenizer's own ids.

        The tokenizer then splits texts as before, and no text can spell a control token.
        """
        spec = json.loads(self._backend.to_str())
        model, names = spec["model"], {text: _name(marker, i) for i, text in self.texts.items()}
        unknown = model.get("unk_token")
        for token in spec["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        in_vocabulary = {text: name for text, name in names.items() if text != unknown}
        if isinstance(model["vocab"], dict):
            model["vocab"] = {in_vocabulary.get(piece, piece): i for piece, i in model["vocab"].items()}
        else:
            model["vocab"] = [[in_vocabulary.get(piece, piece), score] for piece, score in model["vocab"]]
        if "merges" in model:
            model["merges"] = [pair for pair in model["merges"] if not in_vocabulary.keys() & {*pair, "".join(pair)}]
        spec["post_processor"] = None
        backend = Tokenizer.from_str(json.dumps(spec))
        renamed = {backend.token_to_id(_name(marker, i)): i for i in self.texts}
        return backend, {named: i for named, i in renamed.items() if named is not None}


def _name(marker: str, token: int) -> str:
    return f"{marker}{token}{marker}"


def _map_texts(change: Callable[[str], str], value: Any, field: str = "") -> Any:
    """Return messages with every text changed, except words that are keys or that templates compare."""
    if isinstance(value, str):
        return value if field in STRUCTURE and re.fullmatch(r"[\w-]+", value) else change(value)
    if isinstance(value, Mapping):
        return {_map_texts(change, key, STRUCTURE[0]): _map_texts(change, entry, key) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [_map_texts(change, entry) for entry in value]
    return value


def _unused(text: str, count: int) -> list[str]:
    """Return private-use characters that a text does not contain."""
    used, characters = set(text), map(chr, range(0xF0000, 0xFFFFE))
    return [character for _, character in zip(range(count), (c for c in characters if c not in used), strict=False)]


def _without_markers(text: str, begin: str, end: str, tokens: set[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return a text without markers and the spans of the tokens between two of them.

    A template that cuts a text at a token leaves lone markers, which are dropped.
    """
    plain, spans = "", []
    parts = re.split(f"{begin}({'|'.join(map(re.escape, tokens))}){end}|[{begin}{end}]", text)
    for number, part in enumerate(parts):
        if number % 2 and part:
            spans.append((len(plain), len(plain) + len(part)))
        plain += part or ""
    return plain, spans
