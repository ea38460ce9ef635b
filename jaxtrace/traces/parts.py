"""The numbered parts of the three tables: `TABLE/PARTITION/part-00000.parquet` and on."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jaxtrace.errors import StoreError
from jaxtrace.traces.location import Location

TABLES = ("tokens", "layers", "prompts")  # written in this order
CHECKED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


def part_name(number: int, process: int | None = None) -> str:
    """The file name of a part in each table's directory; of one process of several, with its number."""
    return f"part-{number:05d}.parquet" if process is None else f"part-{process:03d}-{number:05d}.parquet"


def part_number(name: str) -> tuple[int, ...]:
    """The numbers in a part's name, its own last: names in this order are parts in the order they were written."""
    return tuple(int(number) for number in name.removesuffix(".parquet").split("-")[1:])


def whole_parts(files: Mapping[str, Iterable[str]]) -> list[str]:
    """The names of the parts that all tables have, in the order they were written; `files` are names by table."""
    names = set.intersection(*({name for name in files[table] if _is_part(name)} for table in TABLES))
    return sorted(names, key=part_number)


def write_part(path: Location, table: pa.Table) -> None:
    """Writes one part of one table, whole or not at all.

    Floats are split into streams of bytes and given no dictionary: a fifth smaller and three times as fast.
    """
    floats = [name for field in table.schema if (name := _float_column(field))]
    others = [field.name for field in table.schema if not _float_column(field)]
    encoding: dict[str, Any] = {"use_dictionary": others, "use_byte_stream_split": floats}
    with path.writing() as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True, **encoding)


def read_part(path: Location, columns: list[str] | None = None) -> pa.Table:
    """Reads one part of one table, its checksums verified.

    Raises:
      StoreError: it cannot be read.
    """
    with _explained(path), pq.ParquetFile(path.path, filesystem=path.fs, page_checksum_verification=True) as file:
        return file.read(columns)


def read_schema(path: Location) -> pa.Schema:
    """The columns of a part; raises as `read_part`."""
    with _explained(path), pq.ParquetFile(path.path, filesystem=path.fs) as file:
        return file.schema_arrow


@contextmanager
def _explained(path: Location) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise StoreError(
            f"{path}: cannot be read ({reason}); restore it, or delete {path.name} of all three tables and resume the "
            "run: its prompts are done again"
        ) from error


def part_prompts(tables: dict[str, Location], name: str) -> list[int] | None:
    """The prompts of a part, None where a file of it is cut short or the tables disagree on how many rows it has.

    Args:
      tables: where each table's parts are.
      name: of the part.
    """
    try:
        prompts = read_part(tables["prompts"] / name, ["prompt", "length"])
        tokens, layers = (_row_count(tables[table] / name) for table in ("tokens", "layers"))
    except StoreError:
        return None
    length = sum(prompts["length"].to_pylist())
    agree = tokens == length and (layers % length == 0 if length else layers == 0)
    return prompts["prompt"].to_pylist() if agree else None


def _row_count(path: Location) -> int:
    with _explained(path), pq.ParquetFile(path.path, filesystem=path.fs) as file:
        return file.metadata.num_rows


def _is_part(name: str) -> bool:
    return name.startswith("part-") and name.endswith(".parquet")


def _float_column(field: pa.Field) -> str | None:
    """The column's path in the file if it holds floats."""
    if pa.types.is_floating(field.type):
        return field.name
    if pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type):
        return f"{field.name}.list.element"
    return None
