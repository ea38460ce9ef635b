"""Builds a tokenizer's files from the metadata of a GGUF file, so that they are read as those of any checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from typing import Any, TypeVar

from jaxtrace.checkpoints.chat_template import SOURCE, failing_template
from jaxtrace.checkpoints.gguf.splits import SPLITS
from jaxtrace.checkpoints.tokenizer import FAST, SETTINGS
from jaxtrace.errors import CheckpointError, few, shown

GENERATION = "generation_config.json"
PREFIX = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # a space in SentencePiece's vocabularies
ADVICE = "convert the model to GGUF again with a current llama.cpp, or use its Hugging Face checkpoint"
MAX_TOKEN = 4096  # characters; published tokens have up to 256
# Tokens that end a turn of the assistant. Files name one end-of-sequence token, where generation_config.json lists all.
END_OF_TURN = ("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<turn|>")
SPECIAL_TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}

T = TypeVar("T")


class TokenType(IntEnum):
    """Types of tokens in `tokenizer.ggml.token_type`, as llama.cpp numbers them."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def tokenizer_files(metadata: Mapping[str, Any], source: str) -> dict[str, str]:
    """Return tokenizer.json, tokenizer_config.json and generation_config.json of a GGUF file, as JSON texts by name.

    `Tokenizer.from_files` reads them. A file without a tokenizer has none.

    Args:
      metadata: values of the file's metadata by key; arrays are lists.
      source: name of the file, for error messages.

    Raises:
      CheckpointError: the kind of the tokenizer or its pre-tokenizer is not supported, or the metadata is invalid.
    """
    kind = metadata.get(f"{PREFIX}model")
    if kind in ("none", "no_vocab") or not any(key.startswith(PREFIX) for key in metadata):
        return {}
    fields = _Fields(metadata, source)
    if kind not in list(KINDS):  # the value may be unhashable
        raise fields.error("model", f"is {kind!r:.60}, which is not supported ({', '.join(KINDS)})")
    vocabulary = _read_vocabulary(fields)
    spec = KINDS[kind](fields, vocabulary)
    ends = {vocabulary.special[name] for name in ("eos", "eot", "eom") if name in vocabulary.special}
    templates = _templates(fields)
    written = "".join(template["template"] for template in templates)
    ends |= {i for i, token in enumerate(vocabulary.tokens) if token in END_OF_TURN and token in written}
    settings: dict[str, Any] = {
        name: vocabulary.tokens[vocabulary.special[key]]
        for name, key in SPECIAL_TOKENS.items()
        if key in vocabulary.special
    }
    if templates:
        only_default = [template["name"] for template in templates] == ["default"]
        settings["chat_template"] = templates[0]["template"] if only_default else templates
    contents = {FAST: spec, SETTINGS: settings, GENERATION: {"eos_token_id": sorted(ends)} if ends else {}}
    return {name: json.dumps(content, ensure_ascii=False) for name, content in contents.items()}


@dataclass(frozen=True)
class _Fields:
    """The tokenizer's fields of a file, checked when they are read."""

    metadata: Mapping[str, Any]
    source: str

    def error(self, name: str, problem: str) -> CheckpointError:
        """Return the error for the value of a field."""
        return CheckpointError(f"{self.source}: {PREFIX}{name} {problem}; {ADVICE}")

    def scalar(self, name: str, kind: type[T]) -> T | None:
        """Return a value of a type, or None if the file has none."""
        value = self.metadata.get(PREFIX + name)
        if value is None or type(value) is kind:
            return value
        raise self.error(name, f"is {shown(repr(value), 60)}, not {kind.__name__}")

    def array(self, name: str, kinds: tuple[type, ...], length: int | None = None) -> list[Any] | None:
        """Return a list of values of one of some types, or None if the file has none."""
        values = self.metadata.get(PREFIX + name)
        if values is None:
            return None
        if not isinstance(values, list | tuple):
            raise self.error(name, f"is {shown(repr(values), 60)}, not an array")
        if length is not None and len(values) != length:
            raise self.error(name, f"has {len(values):,} entries for {length:,} tokens")
        for i, value in enumerate(values):
            if type(value) not in kinds:
                raise self.error(name, f"holds {shown(repr(value), 60)} at {i}, not {kinds[0].__name__}")
        return list(values)


@dataclass(frozen=True)
class _Vocabulary:
    """Tokens of a file.

    Attributes:
      tokens: text of each id.
      types: type of each id.
      special: ids of special tokens that the file names, by role: "bos", "eos", "eot", "eom", "unknown", "padding".
    """

    tokens: list[str]
    types: list[TokenType]
    special: dict[str, int]

    def ids(self) -> dict[str, int]:
        """Return the ids of all tokens but those that only fill the embedding, which llama.cpp names [PAD5]."""
        return {
            token: i
            for i, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind is not TokenType.UNUSED or token != f"[PAD{i}]" or i in self.special.values()
        }


def _read_vocabulary(fields: _Fields) -> _Vocabulary:
    tokens = fields.array("tokens", (str,))
    if not tokens:
        raise fields.error("tokens", "has no entry" if tokens is not None else "is missing")
    for i, token in enumerate(tokens):
        if len(token) > MAX_TOKEN:
            raise fields.error("tokens", f"holds a token of {len(token):,} characters at {i}")
    if len(set(tokens)) < len(tokens):
        first: dict[str, int] = {}
        again = next(i for i, token in enumerate(tokens) if first.setdefault(token, i) != i)
        raise fields.error("tokens", f"holds {shown(repr(tokens[again]), 60)} at {first[tokens[again]]} and {again}")
    numbers = fields.array("token_type", (int,), len(tokens)) or [TokenType.NORMAL] * len(tokens)
    if unknown := sorted({*numbers} - {*TokenType}):
        raise fields.error("token_type", f"holds {few(list(map(str, unknown)))}, which is no type of a token")
    special = {}
    for name in ("bos", "eos", "eot", "eom", "unknown", "padding"):
        number = fields.scalar(f"{name}_token_id", int)
        if number is not None and not 0 <= number < len(tokens):
            raise fields.error(f"{name}_token_id", f"is {number}; the file has {len(tokens):,} tokens")
        if number is not None:
            special[name] = number
    return _Vocabulary(tokens, [TokenType(number) for number in numbers], special)


def _templates(fields: _Fields) -> list[dict[str, str]]:
    """Return the chat templates with their names, "default" for the one without a name."""
    templates = []
    for key, template in fields.metadata.items():
        if key != TEMPLATE and not key.startswith(f"{TEMPLATE}."):
            continue
        if not isinstance(template, str):
            raise CheckpointError(f"{fields.source}: {key} is {shown(repr(template), 60)}, not a text; {ADVICE}")
        if len(template) > SOURCE:
            template = failing_template(f"the chat template has more than {SOURCE:,} characters")
        templates.append({"name": key.removeprefix(TEMPLATE).removeprefix(".") or "default", "template": template})
    return templates


def _byte_level(fields: _Fields, vocabulary: _Vocabulary) -> dict[str, Any]:
    """Return the tokenizer.json of a byte-level BPE, whose splits the file names."""
    name = fields.scalar("pre", str)
    if name is None:
        raise fields.error("pre", "is missing, so that the rule that splits texts is unknown")
    split = SPLITS.get(name)
    if split is None:
        raise fields.error("pre", f"is {name!r}, which is not supported ({', '.join(SPLITS)})")
    ids = vocabulary.ids()
    merges = _stored_merges(fields, ids)
    if merges is None:
        raise fields.error("merges", "is missing")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(vocabulary),
        "normalizer": {"type": "NFC"} if split.nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(split.steps)},
        "post_processor": _post_processor(fields, vocabulary, split.start),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _bpe(ids, merges, ignore_merges=split.ignore_merges),
    }


def _sentencepiece(fields: _Fields, vocabulary: _Vocabulary) -> dict[str, Any]:
    """Return the tokenizer.json of a SentencePiece BPE, as transformers converts it."""
    default = {"bos": 1, "eos": 2, "unknown": 0}  # llama.cpp's, where the file names none
    for name, number in default.items():
        if number < len(vocabulary.tokens):
            vocabulary.special.setdefault(name, number)
    prefix = fields.scalar("add_space_prefix", bool) is not False
    strip = fields.metadata.get("general.architecture") == "phi3"  # its tokens take the white space that follows
    return _spaced(fields, vocabulary, prefix=prefix, strip=strip, start=True)


def _gemma4(fields: _Fields, vocabulary: _Vocabulary) -> dict[str, Any]:
    """Return the tokenizer.json of Gemma 4.

    The files ask for a start token, which llama.cpp needs; the published tokenizer leaves it to the chat template.
    """
    if fields.array("merges", (str,)) is None:
        raise fields.error("merges", "is missing")
    return _spaced(fields, vocabulary, prefix=False, strip=False, start=None)


KINDS: dict[str, Callable[[_Fields, _Vocabulary], dict[str, Any]]] = {
    "gpt2": _byte_level,
    "llama": _sentencepiece,
    "gemma4": _gemma4,
}


def _spaced(
    fields: _Fields, vocabulary: _Vocabulary, *, prefix: bool, strip: bool, start: bool | None
) -> dict[str, Any]:
    """Return the tokenizer.json of a BPE over whole texts, in which "▁" stands for a space.

    Args:
      fields: fields of the file.
      vocabulary: tokens of the file.
      prefix: True to put a space before each text.
      strip: True if special tokens take the white space that follows.
      start: True to add a start token if the file does not say, None to add none whatever it says.
    """
    tokens = [
        # llama.cpp writes tokens of several spaces as spaces; their text is normalised before BPE sees it.
        SPACE * len(token) if kind is TokenType.USER_DEFINED and token and not token.strip(" ") else token
        for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True)
    ]
    if len(set(tokens)) < len(tokens):
        raise fields.error("tokens", "holds a token of spaces twice, once written with ▁")
    spaced = _Vocabulary(tokens, vocabulary.types, vocabulary.special)
    ids = spaced.ids()
    merges = _stored_merges(fields, ids)
    if merges is None:
        merges = _merges_by_score(fields, spaced)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    decoders: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = vocabulary.special.get("unknown")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(spaced, strip),
        "normalizer": {"type": "Sequence", "normalizers": [prepend, replace]} if prefix else replace,
        "pre_tokenizer": None,
        "post_processor": None if start is None else _post_processor(fields, vocabulary, start),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(ids, merges, unk_token=None if unknown is None else tokens[unknown], byte_fallback=True),
    }


def _bpe(ids: dict[str, int], merges: list[tuple[str, str]], **options: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": ids,
        "merges": merges,
        **options,
    }


def _stored_merges(fields: _Fields, ids: Mapping[str, int]) -> list[tuple[str, str]] | None:
    """Return the merges of the file as pairs, or None if it has none."""
    stored = fields.array("merges", (str,))
    if stored is None:
        return None
    merges = []
    for i, merge in enumerate(stored):
        cut = merge.find(" ", 1)
        left, right = merge[:cut], merge[cut + 1 :]
        if cut < 0 or not ids.keys() >= {left, right, left + right}:
            raise fields.error("merges", f"holds {shown(repr(merge), 60)} at {i}, which makes no token of two others")
        merges.append((left, right))
    return merges


def _merges_by_score(fields: _Fields, vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    """Return the merges that a SentencePiece BPE implies: the pairs that make the token of the highest score first.

    SentencePiece takes user-defined tokens whole: they come before all others, and are no part of them.
    """
    scores = fields.array("scores", (float, int), len(vocabulary.tokens))
    if scores is None:
        raise fields.error("scores", "is missing")
    for i, score in enumerate(scores):
        if not isfinite(score):
            raise fields.error("scores", f"holds {score} at {i}")
    left_out = (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.BYTE)
    ids = {token: i for token, i in vocabulary.ids().items() if vocabulary.types[i] not in left_out}
    whole = {token for token, i in ids.items() if vocabulary.types[i] is TokenType.USER_DEFINED}
    parts = ids.keys() - whole
    pairs = []
    for token, i in ids.items():
        usable, rank = (ids, (0, 0.0, i)) if token in whole else (parts, (1, -scores[i], i))
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in usable and right in usable:
                pairs.append((*rank, ids[left], ids[right], left, right))
    joined = {i: score for normal, score, i, *_ in pairs if normal}
    if len(joined) > 1 and len({*joined.values()}) == 1:
        raise fields.error("scores", "are the same for all tokens, which gives no order to merge them")
    return [(left, right) for *_, left, right in sorted(pairs)]


def _added_tokens(vocabulary: _Vocabulary, strip: bool = False) -> list[dict[str, Any]]:
    """Return the tokens that are matched as a whole: control tokens, which are special, and user-defined ones.

    Args:
      vocabulary: tokens of the file.
      strip: True if they take the white space that follows, except the unknown token and those around a text.
    """
    special = {vocabulary.special[name] for name in ("bos", "eos", "eot", "eom") if name in vocabulary.special}
    special |= {i for i, kind in enumerate(vocabulary.types) if kind in (TokenType.CONTROL, TokenType.UNKNOWN)}
    added = special | {i for i, kind in enumerate(vocabulary.types) if kind is TokenType.USER_DEFINED}
    return [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": strip and token not in ("<unk>", "<s>", "<|endoftext|>"),
            "normalized": False,
            "special": i in special,
        }
        for i in sorted(added)
        if (token := vocabulary.tokens[i]).strip(SPACE)  # spaces are normalised, and then left to the merges
    ]


def _post_processor(fields: _Fields, vocabulary: _Vocabulary, start: bool) -> dict[str, Any] | None:
    """Return the rule that adds the start and the end token.

    Args:
      fields: fields of the file.
      vocabulary: tokens of the file.
      start: True to add a start token if the file does not say.
    """
    wanted = {"bos": start, "eos": False}
    used = {}
    for name, default in wanted.items():
        flag = fields.scalar(f"add_{name}_token", bool)
        if default if flag is None else flag:
            if name not in vocabulary.special:
                raise fields.error(f"{name}_token_id", f"is missing, but add_{name}_token needs it")
            used[name] = vocabulary.special[name]
    if not used:
        return None

    def sequence(letter: str, kind: int) -> list[dict[str, Any]]:
        around = {name: [{"SpecialToken": {"id": vocabulary.tokens[i], "type_id": kind}}] for name, i in used.items()}
        return [*around.get("bos", []), {"Sequence": {"id": letter, "type_id": kind}}, *around.get("eos", [])]

    return {
        "type": "TemplateProcessing",
        "single": sequence("A", 0),
        "pair": sequence("A", 0) + sequence("B", 1),
        "special_tokens": {
            (token := vocabulary.tokens[i]): {"id": token, "ids": [i], "tokens": [token]} for i in used.values()
        },
    }
