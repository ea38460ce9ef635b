"""The numbered parts of the three tables: `TABLE/part-00000.parquet` and on."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jaxtrace.errors import StoreError
from jaxtrace.store.run import atomic

TABLES = ("tokens", "layers", "prompts")  # written in this order


def part_name(number: int) -> str:
    """The file name of a part in each table's directory."""
    return f"part-{number:05d}.parquet"


def part_number(name: str) -> int:
    """The inverse of `part_name`."""
    return int(name.removeprefix("part-").removesuffix(".parquet"))


def whole_parts(directory: Path) -> list[str]:
    """The names of the parts that all three tables have, in the order they were written."""
    names = ({path.name for path in (directory / table).glob("part-*.parquet")} for table in TABLES)
    return sorted(set.intersection(*names), key=part_number)


def write_part(path: Path, table: pa.Table) -> None:
    """Writes one part of one table, whole or not at all.

    Floats are split into streams of bytes and given no dictionary: a fifth smaller and three times as fast.
    """
    floats = [name for field in table.schema if (name := _float_column(field))]
    others = [field.name for field in table.schema if not _float_column(field)]
    encoding: dict[str, Any] = {"use_dictionary": others, "use_byte_stream_split": floats}
    with atomic(path) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True, **encoding)


def read_part(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Reads one part of one table, its checksums verified.

    Raises:
      StoreError: it cannot be read.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns)
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise StoreError(
            f"{path}: cannot be read ({reason}); restore it, or delete {path.name} of all three tables "
            "to go on without its prompts"
        ) from error


def _float_column(field: pa.Field) -> str | None:
    """The column's path in the file if it holds floats."""
    if pa.types.is_floating(field.type):
        return field.name
    if pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type):
        return f"{field.name}.list.element"
    return None
