"""Text files read line by line; whatever is wrong with one becomes a one-line `PromptError`."""

import csv
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from jaxtrace.errors import PromptError
from jaxtrace.tasks.prompt import Prompt


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields each line of a UTF-8 file with its number, from 1; a byte order mark is dropped.

    Args:
      path: the file; it is read as it is asked for, so a large one costs no memory.

    Raises:
      PromptError: the file is missing, a directory, unreadable or not UTF-8.
    """
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}, line {number}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise PromptError(f"{path}: {error.strerror}; name a file that can be read") from error


def read_csv(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields each row of a CSV file, as column → cell, with the number of the line it starts on.

    Args:
      path: a UTF-8 file whose first row names the columns.

    Raises:
      PromptError: what `read_lines` raises; a broken quote; an empty row; a row with more or fewer
        cells than the header; a column named twice.
    """
    rows = csv.reader((line for _, line in read_lines(path)), strict=True)
    start = 1
    try:
        header = next(rows, [])
        for name in header:
            if header.count(name) > 1:
                raise PromptError(f"{path}, line 1: two columns are named '{name}'; rename one")
        start = rows.line_num + 1
        for cells in rows:
            if not any(cells):
                raise PromptError(f"{path}, line {start}: an empty row; delete it")
            if len(cells) != len(header):
                raise PromptError(
                    f"{path}, line {start}: {len(cells)} cells where the header has {len(header)}; "
                    "quote a cell that holds a comma"
                )
            yield start, dict(zip(header, cells, strict=True))
            start = rows.line_num + 1
    except csv.Error as error:
        raise PromptError(f"{path}, line {start}: {error}; mend the quotes of that row") from error


def take(prompts: Iterable[Prompt], limit: int | None, path: Path) -> list[Prompt]:
    """Gathers the first `limit` prompts, or all of them.

    Args:
      prompts: made one at a time, so that what lies past `limit` is never read.
      limit: how many at most; None for all.
      path: the file they come from, for the messages.

    Raises:
      PromptError: `limit` is below 1, or there is no prompt at all.
    """
    if limit is not None and limit < 1:
        raise PromptError(f"a limit of {limit} leaves no prompt; give at least 1, or none for all")
    taken = list(itertools.islice(prompts, limit))
    if not taken:
        raise PromptError(f"{path}: holds no prompt; name a file that does")
    return taken
