"""Readers of data files, row by row; every fault of a file is a one-line `PromptError`."""

import csv
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from jaxtrace.documents import MAX_LINE, MIB, decode_json, first_problem
from jaxtrace.errors import PromptError, reason_of
from jaxtrace.files import open_regular
from jaxtrace.prompts import Prompt

MAX_ROWS = 1_000_000  # of a Parquet file
MAX_COLUMN = 64 * MIB  # bytes of a column of a Parquet file's row group, uncompressed
MAX_BATCH = 1024 * MIB  # bytes of a batch of rows, if every cell is as large as its column

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}

R = TypeVar("R", bound="DataRow")


class DataRow(BaseModel):
    """Base of the rows of a data set: fields of other names are ignored, and no value is converted."""

    model_config = ConfigDict(strict=True, frozen=True)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each line of a UTF-8 file with its number, from 1; a byte order mark is dropped.

    Args:
      path: regular file to read; lines are read one at a time, so that a large file costs no memory.

    Raises:
      PromptError: the file is missing, not a regular file, unreadable or not UTF-8; or a line has more than `MAX_LINE`
        bytes, or a NUL.
    """
    number = 0
    try:
        with open_regular(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), 1):
                if len(line) > MAX_LINE:
                    raise PromptError(f"{path}, line {number}: is longer than {MAX_LINE // MIB} MiB; shorten it")
                if b"\0" in line:
                    raise PromptError(f"{path}, line {number}: not UTF-8 (it holds a NUL); save it as UTF-8")
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(f"{path}, line {number}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise PromptError(f"{path}: {reason_of(error)}; name a file that can be read") from error


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
        advice = "correct the quotes of that row"
        if "field limit" in str(error):
            advice = f"shorten the cell, or {advice}; a .jsonl file has no such limit"
        raise PromptError(f"{path}, line {start}: {error}; {advice}") from error


def read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the JSON value of each line of a UTF-8 file, with the line's number.

    Raises:
      PromptError: an error of `read_lines`; a line that is empty or not JSON.
    """
    for line, text in read_lines(path):
        if not text.strip():
            raise PromptError(f"{path}, line {line}: an empty line; delete it")
        try:
            value = decode_json(text)
        except ValueError as error:
            raise PromptError(
                f"{path}, line {line}: not JSON ({error}); write one object or string per line"
            ) from error
        yield line, value


def read_parquet(path: Path, kind: type[R], problem: str, advice: str) -> Iterator[tuple[int, R]]:
    """Yield each row of a Parquet file with its number, from 1.

    Args:
      path: regular file to read; rows are read in batches, so that a small file cannot fill the memory.
      kind: class of the rows; other columns are not read.
      problem: middle of the message about a row that is not of the kind; the reason follows it.
      advice: end of a message about a column or a row, which says what the user can do.

    Raises:
      PromptError: the file is missing or unreadable, lacks a column, or has a row of another type; its footer tells of
        more than `MAX_ROWS` rows, or of a column of more than `MAX_COLUMN` bytes.
    """
    import pyarrow as pa  # here, so that the list of tasks stays light to import
    import pyarrow.parquet as pq

    number = 0
    try:
        with open_regular(path) as handle, pq.ParquetFile(handle) as file:
            if missing := [name for name in kind.model_fields if name not in file.schema_arrow.names]:
                raise PromptError(f"{path}: lacks the column '{missing[0]}'; {advice}")
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            sizes = [group.column(i).total_uncompressed_size for group in groups for i in range(group.num_columns)]
            largest = max(1, *sizes, 1)
            if file.metadata.num_rows > MAX_ROWS or largest > MAX_COLUMN:
                raise PromptError(
                    f"{path}: has {file.metadata.num_rows:,} rows and columns of up to {largest // MIB} MiB, and at "
                    f"most {MAX_ROWS:,} and {MAX_COLUMN // MIB} MiB are read; give fewer rows, in smaller row groups"
                )
            for batch in file.iter_batches(min(1024, MAX_BATCH // largest), columns=[*kind.model_fields]):
                for row in batch.to_pylist():
                    number += 1
                    yield number, checked_row(kind, row, f"{path}, row {number}", problem, advice)
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise PromptError(f"{path}: {reason or 'not a Parquet file'}; name one that can be read") from error


def checked_row(kind: type[R], row: Any, place: str, problem: str, advice: str) -> R:
    """Return a row of a data set; raise PromptError with its place and the first field that is missing or wrong."""
    try:
        return kind.model_validate(row)
    except ValidationError as error:
        raise PromptError(f"{place}: {problem} ({first_problem(error)}); {advice}") from None


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
