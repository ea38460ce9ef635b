"""Numbered parts of the three tables: `TABLE/PARTITION/part-00000.parquet`, part-00001 and so on."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jaxtrace.errors import StoreError, few
from jaxtrace.traces.location import Location

TABLES = ("tokens", "layers", "prompts")  # written in this order
READERS = 8  # parts that are read at once
CHECKED_PARQUET = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


def part_name(number: int, process: int | None = None) -> str:
    """Return the file name of a part; with several processes it contains the number of the process."""
    return f"part-{number:05d}.parquet" if process is None else f"part-{process:03d}-{number:05d}.parquet"


def part_number(name: str) -> tuple[int, ...]:
    """Return the numbers in a part's name, its own number last. They sort like the times of writing."""
    return tuple(int(number) for number in name.removesuffix(".parquet").split("-")[1:])


def complete_parts(files: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the names of parts that all tables have, in the order of writing; `files` maps a table to its files."""
    names = set.intersection(*({name for name in files[table] if _is_part(name)} for table in TABLES))
    return sorted(names, key=part_number)


def write_part(path: Location, table: pa.Table) -> None:
    """Write one part of one table atomically.

    Floats use byte-stream split without a dictionary: files are a fifth smaller and written three times as fast.
    """
    floats = [name for field in table.schema if (name := _float_column(field))]
    others = [field.name for field in table.schema if not _float_column(field)]
    encoding: dict[str, Any] = {"use_dictionary": others, "use_byte_stream_split": floats}
    with path.writing() as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True, **encoding)


def read_part(path: Location, columns: list[str] | None = None) -> pa.Table:
    """Read one part of one table and verify its checksums.

    Raises:
      StoreError: the part cannot be read.
    """
    with _store_errors(path), pq.ParquetFile(path.path, filesystem=path.fs, page_checksum_verification=True) as file:
        return file.read(columns)


def read_schema(path: Location) -> pa.Schema:
    """Return the columns of a part; raises like `read_part`."""
    with _store_errors(path), pq.ParquetFile(path.path, filesystem=path.fs) as file:
        return file.schema_arrow


@contextmanager
def _store_errors(path: Location) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise StoreError(
            f"{path}: cannot be read ({reason}); restore it, or delete {path.name} of all three tables and resume the "
            "run, which repeats its prompts"
        ) from error


def read_lengths(tables: dict[str, Location]) -> dict[str, list[tuple[int, int]] | None]:
    """Return the (prompt number, number of steps) pairs of each part that all tables have, in the order of writing.

    The value of a part is None if a file is damaged or the tables disagree on the number of rows.

    Args:
      tables: directory of each table's parts.
    """
    names = complete_parts({table: folder.names() for table, folder in tables.items()})
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(names, pool.map(lambda name: _part_lengths(tables, name), names), strict=True))


def count_problem(stored: Sequence[tuple[int, int]], prompts: Collection[int]) -> str | None:
    """Return what is wrong with a run that should have stored each of its prompts once; None if nothing is.

    Args:
      stored: (prompt number, number of steps) of every stored row.
      prompts: numbers of the run's prompts.
    """
    counts = Counter(number for number, _ in stored)
    problems = {
        "missing": sorted({*prompts} - counts.keys()),
        "stored twice": sorted(number for number, count in counts.items() if count > 1),
    }
    texts = [
        f"{len(numbers)} of {len(prompts)} prompts {'is' if len(numbers) == 1 else 'are'} {problem} "
        f"(number {few([*map(str, numbers)])})"
        for problem, numbers in problems.items()
        if numbers
    ]
    return " and ".join(texts) or None


def _part_lengths(tables: dict[str, Location], name: str) -> list[tuple[int, int]] | None:
    try:
        prompts = read_part(tables["prompts"] / name, ["prompt", "length"])
        tokens, layers = (_row_count(tables[table] / name) for table in ("tokens", "layers"))
    except StoreError:
        return None
    lengths = prompts["length"].to_pylist()
    length = sum(lengths)
    agree = tokens == length and (layers % length == 0 if length else layers == 0)
    return [*zip(prompts["prompt"].to_pylist(), lengths, strict=True)] if agree else None


def _row_count(path: Location) -> int:
    with _store_errors(path), pq.ParquetFile(path.path, filesystem=path.fs) as file:
        return file.metadata.num_rows


def _is_part(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".parquet")


def _float_column(field: pa.Field) -> str | None:
    """Return the column's path in the Parquet file if it holds floats, else None."""
    if pa.types.is_floating(field.type):
        return field.name
    if pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type):
        return f"{field.name}.list.element"
    return None
