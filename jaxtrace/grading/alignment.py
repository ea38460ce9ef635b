"""From a quote of an answer to the steps that drew it."""

from __future__ import annotations

import re
from itertools import accumulate

from jaxtrace.traces.trace import Row


def steps_of(quote: str, row: Row) -> tuple[int, int] | None:
    """The first and the last step that draw a token of a quote; None where it is not in the answer exactly once.

    Steps count from 0 at the one that draws the answer's first token, whatever of the prompt was traced. A token of
    which only a part is quoted counts. White space matches any other white space.

    Args:
      quote: a passage of the answer, word for word.
      row: the trace of a generated answer.
    """
    pieces = row.pieces[row.prompt_steps :]
    words = quote.split()
    found = list(re.finditer(r"\s+".join(map(re.escape, words)), "".join(pieces))) if words else []
    if len(found) != 1:
        return None
    start, end = found[0].span()
    ends = list(accumulate(map(len, pieces)))
    first = next(i for i, stop in enumerate(ends) if stop > start)
    last = next(i for i, stop in enumerate(ends) if stop >= end)
    return first, last
