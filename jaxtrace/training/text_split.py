"""Sequences of training and held-out texts: no text is in both parts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import ConfigError
from jaxtrace.training.settings import Recipe

HELD_OUT = 10  # about every tenth sequence is held out of the training


@dataclass(frozen=True)
class TextSplit:
    """Texts as sequences of equal length.

    Attributes:
      training: sequences to train on.
      held_out: sequences of other texts.
      texts: number of different texts.
      held_out_texts: number of different texts that are held out.
    """

    training: Int[np.ndarray, "n T"]
    held_out: Int[np.ndarray, "S T"]
    texts: int
    held_out_texts: int


def split_by_text(ids: Sequence[Int[np.ndarray, " P"]], recipe: Recipe, tokenizer: Tokenizer | None) -> TextSplit:
    """Hold out about a tenth of the texts' tokens, and cut both parts into sequences of `recipe.length` tokens.

    All copies of a text are in one part. Texts are equal if they differ in case and white space alone. The texts of
    each part are joined, and its incomplete last sequence is dropped.

    Args:
      ids: texts as token ids.
      tokenizer: tokenizer that gives their words; None compares the ids.

    Raises:
      ConfigError: the texts are too short for one batch and the held-out sequences, or all equal.
    """
    copies: dict[Hashable, list[Int[np.ndarray, " P"]]] = {}
    for row in ids:
        copies.setdefault(_identity(row, tokenizer), []).append(np.asarray(row, np.int32))
    groups = [np.concatenate(rows) for rows in copies.values()]
    total = sum(map(len, groups))
    count = total // recipe.length
    wanted = max(1, count // HELD_OUT)
    advice = "give more text, or a smaller --batch or --length"
    if count < recipe.batch + wanted:
        raise ConfigError(
            f"{total} tokens of text make {count} sequences of {recipe.length}, and a lens needs "
            f"{recipe.batch + wanted}; {advice}"
        )
    if len(groups) < 2:
        raise ConfigError(f"all {len(ids)} texts are equal, so that none can be held out; give different texts")
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    tokens = 0
    for i in np.random.default_rng(recipe.seed).permutation(len(groups)):
        # a text of most tokens is better trained on
        held_out = tokens < wanted * recipe.length and tokens + len(groups[i]) <= total // 2
        tokens += len(groups[i]) * held_out
        parts[held_out].append(groups[i])
    training, held_out = (_cut(part, recipe.length) for part in parts)
    if len(training) < recipe.batch or not len(held_out):
        raise ConfigError(
            f"{len(groups)} different texts make {len(training)} sequences of {recipe.length} to train on and "
            f"{len(held_out)} to hold out, and a lens needs {recipe.batch} and 1; {advice}"
        )
    return TextSplit(training, held_out, len(groups), len(parts[True]))


def _identity(ids: Int[np.ndarray, " P"], tokenizer: Tokenizer | None) -> Hashable:
    if tokenizer is None:
        return np.asarray(ids, np.int32).tobytes()
    return tuple(tokenizer.decode(ids).casefold().split())


def _cut(texts: Sequence[Int[np.ndarray, " P"]], length: int) -> Int[np.ndarray, "n T"]:
    joined = np.concatenate([np.empty(0, np.int32), *texts])
    count = len(joined) // length
    return joined[: count * length].reshape(count, length)
