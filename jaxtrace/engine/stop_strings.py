"""Stop strings, matched inside the decode loop: an automaton that reads a row's drawn tokens one after another."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Int

from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import ConfigError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StopStrings:
    """An automaton over tokens. Its state is the longest end of the drawn text that begins a stop string.

    The start is state 0. The last state means that a stop string is complete, and is never left. Texts are compared as
    UTF-8, so a stop string may begin inside one token, end inside a later one, and split a character.

    Attributes:
      classes: class of each token; tokens of one class have the same effect.
      following: next state, by state and class.
    """

    classes: Int[Array, " V"] | Int[np.ndarray, " V"]
    following: Int[Array, "S C"] | Int[np.ndarray, "S C"]

    @classmethod
    def of(cls, strings: Sequence[str], tokens: Sequence[bytes]) -> StopStrings:
        """Return the automaton of stop strings, at least one and none empty, over tokens with these texts."""
        endings = tuple(string.encode() for string in strings)
        prefixes = list(dict.fromkeys(ending[:size] for ending in endings for size in range(len(ending))))
        numbers, complete = {prefix: number for number, prefix in enumerate(prefixes)}, len(prefixes)
        alphabet = bytes(sorted({*b"".join(endings)}))
        by_byte = np.zeros((complete + 1, 256), np.int32)
        by_byte[complete] = complete
        for prefix, byte in ((prefix, byte) for prefix in prefixes for byte in alphabet):
            text = prefix + bytes([byte])
            tails = (text[start:] for start in range(len(text) + 1))
            by_byte[numbers[prefix], byte] = (
                complete if text.endswith(endings) else next(numbers[tail] for tail in tails if tail in numbers)
            )
        # A run of bytes that no stop string has leads to state 0, whatever the run: few classes remain.
        other = bytes([next(byte for byte in range(256) if byte not in alphabet)])
        texts = [re.sub(b"[^" + re.escape(alphabet) + b"]+", other, token) for token in tokens]
        classes = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        following = np.tile(np.arange(complete + 1, dtype=np.int32)[:, None], len(classes))
        for at in range(max(map(len, classes))):
            numbered = [(number, text[at]) for text, number in classes.items() if at < len(text)]
            longer, bytes_at = np.array(numbered).T
            following[:, longer] = by_byte[following[:, longer], bytes_at]
        return cls(np.array([classes[text] for text in texts], np.int32), following)

    def matched(self, tokens: Int[np.ndarray, " n"]) -> bool:
        """Return True if the tokens complete a stop string."""
        state = 0
        for token in tokens:
            state = int(self.following[state, self.classes[token]])
        return state == len(self.following) - 1


def check_stop(strings: Sequence[str], tokenizer: Tokenizer | None) -> None:
    """Raise ConfigError if there are stop strings and no tokenizer."""
    if strings and tokenizer is None:
        raise ConfigError(f"stop is {strings[0]!r}, and the model has no tokenizer; drop stop, or give stop_tokens")


def cut_pieces(pieces: Sequence[str], strings: Sequence[str]) -> list[str]:
    """Return the pieces of a text cut where its first stop string begins; empty ones follow."""
    text = "".join(pieces)
    end = min((text.find(string) for string in strings if string in text), default=len(text))
    cut = []
    for piece in pieces:
        cut.append(piece[: max(0, end)])
        end -= len(piece)
    return cut
