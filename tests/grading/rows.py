"""Answers without metrics."""

import numpy as np

from jaxtrace.prompts import Prompt
from jaxtrace.traces.trace import Row


def answer(pieces, meta, *, id="p", text="Who?", ahead=0):
    """A row of an answer; the last `ahead` of the prompt's own positions come before it."""
    return Row(
        prompt=Prompt(text=text, id=id, meta=meta),
        prompt_tokens=np.arange(4, dtype=np.int32),
        prompt_pieces=("a",) * 4,
        metrics={"token": np.arange(ahead + len(pieces), dtype=np.int32)},
        pieces=("a",) * ahead + tuple(pieces),
        text="".join(pieces),
        stop="length",
        prompt_steps=ahead,
    )
