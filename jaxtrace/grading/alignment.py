"""Alignment of a quote from an answer with the steps that drew it."""

from __future__ import annotations

import re
from itertools import accumulate

from jaxtrace.traces.row import Row


def steps_of_quote(quote: str, row: Row) -> tuple[int, int] | None:
    """Return the first and the last step that draw a token of a quote, or None unless the answer has it exactly once.

    Steps count from 0 at the first drawn token, whether or not the prompt was traced; those of a thought count, but a
    quote is looked for only after it. A token counts if any part of it is quoted. White space matches any other white
    space.

    Args:
      quote: passage of the answer, word for word.
      row: trace of a generated answer.
    """
    pieces = row.pieces[row.prompt_steps :]
    quoted = re.compile(r"\s+".join(map(re.escape, quote.split())))
    matches = list(quoted.finditer(row.drawn_text, row.answer_start)) if quoted.pattern else []
    if len(matches) != 1:
        return None
    start, end = matches[0].span()
    ends = list(accumulate(map(len, pieces)))
    first = next(i for i, stop in enumerate(ends) if stop > start)
    last = next(i for i, stop in enumerate(ends) if stop >= end)
    return first, last
