"""Packing keeps every document whole."""

import numpy as np
import pytest

from jaxtrace.lab.tokenizer import BOS_ID, EOS_ID, PAD_ID
from jaxtrace.lab.training import pack


@pytest.mark.parametrize("open_rows", [1, 4])
def test_pack_keeps_every_document_whole(open_rows):
    rng = np.random.default_rng(0)
    documents = [[BOS_ID, *rng.integers(3, 50, rng.integers(1, 14)).tolist(), EOS_ID] for _ in range(100)]
    rows = pack(documents, 16, open_rows)
    assert rows.dtype == np.int32 and rows.shape[1] == 16
    assert (rows[:, 0] == BOS_ID).all()
    unpacked = []
    for row in rows:
        ids = row[row != PAD_ID].tolist()
        starts = [i for i, token in enumerate(ids) if token == BOS_ID]
        unpacked += [ids[a:b] for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
    assert sorted(unpacked) == sorted(documents)


def test_pack_cuts_a_document_longer_than_a_row():
    assert pack([[BOS_ID, 5, 6, 7, EOS_ID]], 3).tolist() == [[BOS_ID, 5, 6]]
