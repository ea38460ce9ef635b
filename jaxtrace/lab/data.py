"""Packs documents into rows of tokens."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from jaxtrace.lab.tokenizer import EOS_ID, PAD_ID


def encode_documents(tokenizer: Tokenizer, texts: Iterable[str]) -> list[list[int]]:
    """Return the token ids of each document, `<s> ... </s>`."""
    return [[*encoding.ids, EOS_ID] for encoding in tokenizer.encode_batch(list(texts))]


def pack(documents: Iterable[Sequence[int]], length: int, open_rows: int = 16) -> Int[np.ndarray, "n T"]:
    """Pack whole documents into rows of `length` tokens, first fit, padded at the end.

    Every row begins with a document, as a prompt does.

    Args:
      documents: token ids of each document; one longer than a row is cut.
      open_rows: number of unfinished rows to try a document in; beyond it the fullest row is closed.

    Returns:
      int32 rows, padded with `PAD_ID`.
    """
    closed: list[list[int]] = []
    rows: list[list[int]] = []
    for document in documents:
        piece = list(document[:length])
        row = next((row for row in rows if len(row) + len(piece) <= length), None)
        if row is not None:
            row.extend(piece)
            continue
        if len(rows) == open_rows:
            rows.sort(key=len)
            closed.append(rows.pop())
        rows.append(piece)
    closed.extend(rows)
    packed = np.full((len(closed), length), PAD_ID, np.int32)
    for index, row in enumerate(closed):
        packed[index, : len(row)] = row
    return packed
