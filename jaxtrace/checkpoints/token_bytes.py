"""The bytes that each token adds to a text."""

from __future__ import annotations

import functools
import re
from string import ascii_letters

from tokenizers import Tokenizer as Backend


def token_bytes(backend: Backend, vocab: int) -> list[bytes]:
    """Return the UTF-8 that each id below `vocab` adds within a text: a special token's text too, b"" for no token."""
    tokens = [backend.id_to_token(i) or "" for i in range(vocab)]
    special = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
    decoder = b"" if backend.decoder is None else backend.decoder.__getstate__()
    if b'"ByteLevel"' in decoder:
        added = [_byte_level(token) for token in tokens]
    else:
        # Decoders write a token differently at the beginning of a text, so a letter precedes each one.
        letters = (i for i in range(vocab) if tokens[i] and backend.decode([i]) in ascii_letters)
        letter = next(letters, 0)
        first = len(backend.decode([letter], skip_special_tokens=False))
        texts = backend.decode_batch([[letter, i] for i in range(vocab)], skip_special_tokens=False)
        added = [text[first:].encode() for text in texts]
        if b'"ByteFallback"' in decoder:
            bytes_of = re.compile("<0x([0-9A-F]{2})>").fullmatch
            added = [bytes.fromhex(match[1]) if (match := bytes_of(tokens[i])) else x for i, x in enumerate(added)]
    return [tokens[i].encode() if i in special else x for i, x in enumerate(added)]


def _byte_level(token: str) -> bytes:
    characters = byte_level_characters()
    return bytes(characters[c] for c in token) if characters.keys() >= {*token} else token.encode()


@functools.cache
def byte_level_characters() -> dict[str, int]:
    """Return the byte behind each character of a byte-level vocabulary (GPT-2's `bytes_to_unicode`, inverted)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(moved)}
