"""Numbered parts of the three tables: `TABLE/PARTITION/part-00000.parquet`, part-00001 and so on.

The footer of each file holds a seal under the key "jaxtrace": the run, table and part of the file, and the SHA-256 of
its data and of the footer itself (hashed with zeros in place of its own hash). Parts of format 1 have no seals.
"""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jaxtrace.errors import StoreError, few, reason_of
from jaxtrace.traces.checking import Mismatch, check_values
from jaxtrace.traces.location import Location

TABLES = ("tokens", "layers", "prompts")  # written in this order
READERS = 8  # parts that are read at once
CHECKED_PARQUET = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)
SEAL = b"jaxtrace"
DATA_HASH, FOOTER_HASH = b'"data_sha256": "', b'"footer_sha256": "'  # each is followed by 64 hexadecimal digits
ZEROS = b"0" * 64
TAIL = 2**16  # bytes to read in which most footers lie
FOOTER_END = 8  # bytes after a footer: its length, and the mark of Parquet
UNREADABLE = (OSError, pa.ArrowException, ValueError)


def part_name(number: int, process: int | None = None) -> str:
    """Return the file name of a part; with several processes it contains the number of the process."""
    return f"part-{number:05d}.parquet" if process is None else f"part-{process:03d}-{number:05d}.parquet"


def part_number(name: str) -> tuple[int, ...]:
    """Return the numbers in a part's name, its own number last. They sort like the times of writing."""
    return tuple(int(number) for number in name.removesuffix(".parquet").split("-")[1:])


def complete_parts(files: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the names of parts that all tables have, in the order of writing; `files` maps a table to its files."""
    names = set.intersection(*({name for name in files[table] if is_part(name)} for table in TABLES))
    return sorted(names, key=part_number)


def is_part(name: str) -> bool:
    """Return True for the name of a part."""
    stem = name.removeprefix("part-").removesuffix(".parquet")
    return name == f"part-{stem}.parquet" and all(number.isdecimal() for number in stem.split("-"))


def sealed(table: pa.Table, run: str, name: str, part: str) -> pa.Table:
    """Return a table of a run whose file `write_part` seals."""
    seal = {"run": run, "table": name, "part": part, "data_sha256": ZEROS.decode(), "footer_sha256": ZEROS.decode()}
    return table.replace_schema_metadata({SEAL: json.dumps(seal).encode()})


def write_part(path: Location, table: pa.Table) -> None:
    """Write one part of one table atomically.

    Floats use byte-stream split without a dictionary: files are a fifth smaller and written three times as fast.
    """
    floats = [name for field in table.schema if (name := _float_column(field))]
    others = [field.name for field in table.schema if not _float_column(field)]
    encoding: dict[str, Any] = {"use_dictionary": others, "use_byte_stream_split": floats}
    with path.writing() as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True, **encoding)
        if SEAL in (table.schema.metadata or {}):
            _write_hashes(file)


def read_part(path: Location, columns: list[str] | None = None) -> pa.Table:
    """Read one part of one table; verify the hashes of its seal, or its page checksums if it has none.

    Returns:
      The table; its schema has the seal as metadata.

    Raises:
      StoreError: the part cannot be read, or was changed since it was written.
    """
    with _store_errors(path):
        content = path.read()
        intact = _verify(content)
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=not intact) as file:
            table = file.read(columns)
            if not intact:
                table.validate(full=True)
            return table.replace_schema_metadata(_seal(file.metadata) if intact else None)


def check_part(path: Location, *, whole: bool = True) -> tuple[int, pa.Schema]:
    """Verify the hashes of one part of one table, if it has a seal.

    Args:
      path: file of the part.
      whole: False verifies the footer only; page checksums, which a scan verifies, cover most of the rest. A part on an
        object store is always verified in this way, so that a scan fetches only the columns that it selects.

    Returns:
      Number of rows; columns with the seal as metadata.

    Raises:
      StoreError: the part cannot be read, or was changed since it was written.
    """
    with _store_errors(path):
        if whole and path.local:
            content = path.read()
            intact = _verify(content)
        else:
            content = path.tail(TAIL)
            if len(content) < (size := _footer_size(content) + FOOTER_END):
                content = path.tail(size)
            intact = _verify_footer(content[-size:]) is not None
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            return file.metadata.num_rows, file.schema_arrow.with_metadata(_seal(file.metadata) if intact else None)


def check_seal(path: Location, schema: pa.Schema, run: str | None, table: str) -> None:
    """Compare the seal of a part with its place.

    Args:
      path: file of the part.
      schema: its columns, from `read_part` or `check_part`.
      run: id of the run; None for a run of format 1, whose parts have no seals.
      table: name of the table.

    Raises:
      StoreError: the file belongs to another run, table or part, or lacks its seal.
    """
    text = (schema.metadata or {}).get(SEAL)
    seal = json.loads(text) if text else {}
    for name, value in {"run": run, "table": table if run else None, "part": path.name if run else None}.items():
        if seal.get(name) != value:
            wrong = f"belongs to {name} {seal[name]}" if name in seal else "lacks its hashes"
            raise StoreError(f"{path}: {wrong}; {_advice(path)}")


def read_lengths(
    tables: Mapping[str, Location], run: str | None, *, whole: bool
) -> dict[str, list[tuple[int, int]] | None]:
    """Return the (prompt number, number of steps) pairs of each part that all tables have, in the order of writing.

    The value of a part is None if a file is damaged or the tables disagree on the number of rows.

    Args:
      tables: directory of each table's parts.
      run: id of the run; see `check_seal`.
      whole: see `check_part`.
    """
    names = complete_parts({table: folder.names() for table, folder in tables.items()})
    read = functools.partial(_part_lengths, tables, run=run, whole=whole)
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(names, pool.map(read, names), strict=True))


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


def _part_lengths(
    tables: Mapping[str, Location], name: str, *, run: str | None, whole: bool
) -> list[tuple[int, int]] | None:
    try:
        prompts = read_part(tables["prompts"] / name, ["prompt", "length"])
        check_seal(tables["prompts"] / name, prompts.schema, run, "prompts")
        check_values("prompts", prompts, ["prompt", "length"])
        rows = {}
        for table in ("tokens", "layers"):
            rows[table], schema = check_part(tables[table] / name, whole=whole and run is not None)
            check_seal(tables[table] / name, schema, run, table)
    except (StoreError, Mismatch):
        return None
    lengths = prompts["length"].to_pylist()
    length = sum(lengths)
    agree = rows["tokens"] == length and (rows["layers"] % length == 0 if length else rows["layers"] == 0)
    return [*zip(prompts["prompt"].to_pylist(), lengths, strict=True)] if agree else None


def _write_hashes(file: IO[bytes]) -> None:
    """Write the hashes of a sealed Parquet file into its footer."""
    size = file.seek(0, 2)
    file.seek(size - FOOTER_END)
    start = size - FOOTER_END - _footer_size(file.read())
    file.seek(0)
    data = hashlib.sha256()
    for chunk in iter(functools.partial(file.read, 2**20), b""):
        rest = start - (file.tell() - len(chunk))
        data.update(chunk[: max(rest, 0)])
    file.seek(start)
    footer = _fill(file.read(), DATA_HASH, data.hexdigest().encode())
    footer = _fill(footer, FOOTER_HASH, hashlib.sha256(footer).hexdigest().encode())
    file.seek(start)
    file.write(footer)


def _verify(content: bytes) -> bool:
    """Verify a Parquet file; return False if it has no seal."""
    start = len(content) - _footer_size(content) - FOOTER_END
    if (hashed := _verify_footer(content[start:])) is None:
        return False
    if hashlib.sha256(memoryview(content)[:start]).hexdigest().encode() != hashed:
        raise ValueError("its data do not match their SHA-256")
    return True


def _verify_footer(footer: bytes) -> bytes | None:
    """Return the hash of the data; None without a seal."""
    if FOOTER_HASH not in footer:
        return None
    hashed = _hash_in(footer, FOOTER_HASH)
    if hashlib.sha256(_fill(footer, FOOTER_HASH, ZEROS)).hexdigest().encode() != hashed:
        raise ValueError("its footer does not match its SHA-256")
    return _hash_in(footer, DATA_HASH)


def _footer_size(content: bytes) -> int:
    size = int.from_bytes(content[-FOOTER_END:-4], "little")
    if content[-4:] != b"PAR1" or len(content) < FOOTER_END:
        raise ValueError("not a Parquet file, or cut off")
    return size


def _fill(footer: bytes, label: bytes, value: bytes) -> bytes:
    start = footer.rindex(label) + len(label)
    return footer[:start] + value + footer[start + len(value) :]


def _hash_in(footer: bytes, label: bytes) -> bytes:
    start = footer.rindex(label) + len(label)
    return footer[start : start + len(ZEROS)]


def _seal(metadata: pq.FileMetaData) -> dict[bytes, bytes]:
    return {SEAL: metadata.metadata[SEAL]}


@contextmanager
def _store_errors(path: Location) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise StoreError(f"{path}: cannot be read ({reason_of(error)}); {_advice(path)}") from error


def _advice(path: Location) -> str:
    return f"restore it, or delete {path.name} of all three tables and resume the run, which repeats its prompts"


def _float_column(field: pa.Field) -> str | None:
    """Return the column's path in the Parquet file if it holds floats, else None."""
    if pa.types.is_floating(field.type):
        return field.name
    if pa.types.is_list(field.type) and pa.types.is_floating(field.type.value_type):
        return f"{field.name}.list.element"
    return None
