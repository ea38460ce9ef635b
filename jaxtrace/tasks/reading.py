"""Readers of data files, row by row; every fault of a file is a one-line `PromptError`."""

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each line of a UTF-8 file with its number, from 1; a byte order mark is dropped.

    Args:
      path: file to read; lines are read one at a time, so that a large file costs no memory.

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


def read_csv(path: Path, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row of a CSV file, as column → cell, with the number of the line that it starts on.

    Args:
      path: UTF-8 file whose first row names the columns.
      delimiter: character between two cells.

    Raises:
      PromptError: an error of `read_lines`; a broken quote; an empty row; a row with more or fewer cells than the
        header; a column named twice.
    """
    rows = read_cells(path, delimiter)
    _, header = next(rows, (1, []))
    for name in header:
        if header.count(name) > 1:
            raise PromptError(f"{path}, line 1: two columns are named '{name}'; rename one")
    for line, cells in rows:
        if not any(cells):
            raise PromptError(f"{path}, line {line}: an empty row; delete it")
        if len(cells) != len(header):
            raise PromptError(
                f"{path}, line {line}: {len(cells)} cells where the header has {len(header)}; "
                f"quote a cell that holds a {DELIMITERS[delimiter]}"
            )
        yield line, dict(zip(header, cells, strict=True))


def read_cells(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row of a UTF-8 CSV file, the header included, with the line that the row starts on.

    Raises:
      PromptError: an error of `read_lines`; a broken quote.
    """
    rows = csv.reader((line for _, line in read_lines(path)), delimiter=delimiter, strict=True)
    start = 1
    try:
        for cells in rows:
            yield start, cells
            start = rows.line_num + 1
    except csv.Error as error:
        raise PromptError(f"{path}, line {start}: {error}; correct the quotes of that row") from error


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the JSON value of each line of a UTF-8 file, with the line's number.

    Raises:
      PromptError: an error of `read_lines`; a line that is empty or not JSON.
    """
    for line, text in read_lines(path):
        if not text.strip():
            raise PromptError(f"{path}, line {line}: an empty line; delete it")
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
            json.dumps(value, ensure_ascii=False).encode()  # fails for half a surrogate pair
        except (ValueError, RecursionError) as error:
            raise PromptError(
                f"{path}, line {line}: not JSON ({error}); write one object or string per line"
            ) from error
        yield line, value


def read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each row of a Parquet file with its number, from 1; raises PromptError if it cannot be read."""
    import pyarrow as pa  # here, so that the list of tasks stays light to import
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            rows = pq.read_table(file).to_pylist()
    except (OSError, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise PromptError(f"{path}: {reason or 'not a Parquet file'}; name one that can be read") from error
    yield from enumerate(rows, 1)


def take(prompts: Iterable[Prompt], limit: int | None, path: Path) -> list[Prompt]:
    """Return the first `limit` prompts, or all of them.

    Args:
      prompts: iterator that reads prompts one at a time, so that rows past `limit` are never read.
      limit: maximum number; None for all.
      path: file of the prompts, for the messages.

    Raises:
      PromptError: `limit` is below 1, or there is no prompt at all.
    """
    if limit is not None and limit < 1:
        raise PromptError(f"a limit of {limit} allows no prompt; give at least 1, or no limit")
    first = list(itertools.islice(prompts, limit))
    if not first:
        raise PromptError(f"{path}: holds no prompt; name a file that does")
    return first


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")
