"""Answers on a terminal, with their least certain tokens marked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from rich.text import Text

from jaxtrace.errors import visible

if TYPE_CHECKING:
    from jaxtrace.traces.row import Row

MOST_ANSWERS = 5  # a run of more prompts prints none
SHARE = 0.1  # of an answer's tokens that are marked, rounded up
MARKS = "«", "»"  # seen without colours, too


def answer_text(row: Row, encoding: str = "utf-8") -> Text:
    """Return a prompt's name, its answer and the list of its least certain tokens: those of the highest entropy.

    The model's text is not trusted: control characters, invisible ones and those that the terminal cannot show are
    escaped, and nothing in it is markup.

    Args:
      row: trace of the prompt; without entropies nothing is marked.
      encoding: encoding of the terminal.
    """
    parts = list(_parts(row))
    ranked = sorted((number for number, (_, entropy) in enumerate(parts) if entropy >= 0), key=lambda i: -parts[i][1])
    marked = ranked[: math.ceil(SHARE * len(ranked))]
    text = Text.assemble((_plain(row.prompt.id or "answer", encoding), "bold"), "\n  ")
    for number, (piece, _) in enumerate(parts):
        shown = _plain(piece, encoding).replace("\n", "\n  ")
        text.append(*((_plain(shown.join(MARKS), encoding), "bold yellow") if number in marked else (shown, None)))
    certain = [f"{_plain(repr(parts[i][0]), encoding)} {parts[i][1]:.2f}" for i in marked]
    return text.append(f"\n  least certain, in nats: {', '.join(certain)}\n" if certain else "\n", "dim")


def _parts(row: Row) -> Iterator[tuple[str, float]]:
    """Yield the pieces of the answer, each with its entropy; NaN if there is none.

    Tokens that share a character are one piece, with their largest entropy. Tokens after the answer's end, such as the
    stop token, are excluded. Without a tokenizer the pieces are token ids.
    """
    pieces = row.pieces[row.prompt_steps :]
    joined = "".join(pieces)
    start = joined.find(row.text)
    end = start + len(row.text) if start >= 0 and not joined[:start].strip() else len(joined)
    if not joined:
        pieces = tuple(f"{token} " for token in row.metrics["token"][row.prompt_steps :] if token >= 0)
        end = len("".join(pieces))
    entropies = row.metrics.get("entropy", np.full(row.length, np.nan))[row.prompt_steps :]
    highest, place = math.nan, 0
    for piece, entropy in zip(pieces, entropies, strict=False):
        highest = float(np.fmax(highest, entropy))
        if shown := piece[: max(end - place, 0)]:
            yield shown, highest
            highest = math.nan
        place += len(piece)


def _plain(text: str, encoding: str) -> str:
    """Return a text that a terminal shows as it is."""
    return visible(text, keep="\n").encode(encoding, "backslashreplace").decode(encoding)
