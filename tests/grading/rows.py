"""Rows of answers without metrics."""

import numpy as np

from jaxtrace.prompts import Prompt
from jaxtrace.traces.row import Row


def answer(pieces, meta, *, id="p", text="Who?", ahead=0):
    """Return a row of an answer; `ahead` positions of the prompt come before it."""
    return Row(
        prompt=Prompt(text=text, id=id, meta=meta),
        prompt_tokens=np.arange(4, dtype=np.int32),
        prompt_pieces=("a",) * 4,
        metrics={"token": np.arange(ahead + len(pieces), dtype=np.int32)},
        pieces=("a",) * ahead + tuple(pieces),
        text="".join(pieces),
        stop="stop_token",
        prompt_steps=ahead,
    )
