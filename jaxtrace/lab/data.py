"""Documents to fixed-length rows of tokens, and rows to batches."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from jaxtrace.lab.tokenizer import EOS_ID, PAD_ID


def encode_documents(tokenizer: Tokenizer, texts: Iterable[str]) -> list[list[int]]:
    """Each document as `<s> ... </s>` ids."""
    return [[*encoding.ids, EOS_ID] for encoding in tokenizer.encode_batch(list(texts))]


def pack(documents: Iterable[Sequence[int]], length: int, open_rows: int = 16) -> Int[np.ndarray, "n length"]:
    """Lays whole documents into rows of `length` tokens, first fit, padded at the end.

    A row always begins with a document, as a prompt does.

    Args:
      documents: token ids per document; one longer than a row is cut.
      length: tokens per row.
      open_rows: how many unfinished rows to try a document in before the fullest of them is closed.

    Returns:
      int32 rows; `PAD_ID` marks the unused places.
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


def batch_at(rows: Int[np.ndarray, "n length"], step: int, batch: int, seed: int) -> Int[np.ndarray, "batch length"]:
    """The batch of one training step: a pure function of the step, so a resumed run sees the same data.

    Rows are reshuffled every epoch; the rows that do not fill a last batch are left out of that epoch.
    """
    per_epoch = len(rows) // batch
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng((seed, epoch)).permutation(len(rows))
    return rows[order[position * batch : (position + 1) * batch]]
