"""Stored traces, read lazily: one run, or a dataset of many."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast, overload

import pyarrow as pa
import pyarrow.dataset as ds
import xarray as xr

from jaxtrace.errors import StoreError, one_line
from jaxtrace.schema import definition_note
from jaxtrace.traces.checking import Mismatch, check_columns, check_values
from jaxtrace.traces.location import Location
from jaxtrace.traces.parts import CHECKED_PARQUET, TABLES, check_part, check_seal, complete_parts, is_part, read_part
from jaxtrace.traces.row import Row
from jaxtrace.traces.run_json import RESTORE, RUN, find_partitions, partition_keys, read_run, run_path
from jaxtrace.traces.tables import SHAPE, from_tables
from jaxtrace.traces.trace import Trace

CACHED_PARTS = 8
SAME_DIMS = ("probes", *SHAPE)  # keys of `Trace.info` on which runs must agree to share one xarray


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """One run of a dataset.

    Attributes:
      root: directory of the dataset.
      partition: place of the run in the dataset; "" for a single run.
      info: `Trace.info` of the run, with "complete".
      config: complete configuration of the run.
      precision: precision of the floats, "float32" or "float16".
      parts: names of its complete parts.
      size: size of the parts in bytes.
      metrics_version: version of the definitions by which its rows were measured.
      id: random name of the run, which its parts repeat; None for a run of format 1, whose parts have no hashes.
    """

    root: Location
    partition: str
    info: dict[str, Any]
    config: dict[str, Any] | None
    precision: str
    parts: tuple[str, ...]
    size: int
    metrics_version: int = 1
    id: str | None = None
    _verified: dict[str, pa.Schema] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def keys(self) -> dict[str, str]:
        """Keys of its partition: its model, its task, …"""
        return partition_keys(self.partition)

    def part(self, table: str, name: str) -> Location:
        """Return the location of a part of a table."""
        return self.root / table / self.partition / name

    def read(self, table: str, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read a part of a table; raises StoreError if it is damaged or of another run, table or part."""
        path = self.part(table, name)
        part = read_part(path, columns)
        check_seal(path, part.schema, self.id, table)
        try:
            check_values(table, part, columns or ())
        except Mismatch as error:
            raise StoreError(f"{path}: {error}; {RESTORE}") from None
        return part

    def verify(self, table: str) -> pa.Schema:
        """Verify each part of a table once, and return the table's columns; raises StoreError like `read`."""
        if table not in self._verified:
            with ThreadPoolExecutor() as pool:
                schemas = list(pool.map(functools.partial(self._verify_part, table), self.parts))
            self._verified[table] = pa.unify_schemas(schemas)
        return self._verified[table]

    def _verify_part(self, table: str, name: str) -> pa.Schema:
        path = self.part(table, name)
        _, schema = check_part(path, whole=self.id is not None)
        check_seal(path, schema, self.id, table)
        try:
            check_columns(table, schema, self.info)
        except Mismatch as error:
            raise StoreError(f"{path}: {error}; {RESTORE}") from None
        return schema.remove_metadata()


class StoredRows(Sequence[Row]):
    """Rows in the order of runs, then of prompts. A part is read on first access; a few parts stay in memory."""

    def __init__(self, runs: Sequence[StoredRun], prompts: Container[int] | None) -> None:
        self._runs, self._prompts = runs, prompts
        self._part = functools.lru_cache(CACHED_PARTS)(self._read_part)

    @functools.cached_property
    def lengths(self) -> list[int]:
        """Number of steps of each row."""
        return self.column("length")

    def column(self, name: str) -> list[Any]:
        """Return a column of the prompts table, in the order of the rows."""
        columns = {}
        for i, part in dict.fromkeys((i, part) for i, part, _ in self._index):
            table = self._runs[i].read("prompts", part, ["prompt", name]).to_pydict()
            columns[i, part] = dict(zip(table["prompt"], table[name], strict=True))
        return [columns[i, part][prompt] for i, part, prompt in self._index]

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        run, part, prompt = self._index[index]
        return self._part(run, part)[prompt]

    @functools.cached_property
    def _index(self) -> list[tuple[int, str, int]]:
        """Index of the run, part and prompt number of every row."""
        index = []
        for i, run in enumerate(self._runs):
            entries, parts = [], {}
            for name in run.parts:
                prompts = run.read("prompts", name, ["prompt"])["prompt"].to_pylist()
                if (twice := next((prompt for prompt in prompts if prompt in parts), None)) is not None:
                    raise StoreError(
                        f"{run.part('prompts', name)}: prompt {twice} is also in {parts[twice]}; delete one of the two "
                        "parts from all three tables and resume the run"
                    )
                parts |= dict.fromkeys(prompts, name)
                entries += [(i, name, prompt) for prompt in prompts if self._prompts is None or prompt in self._prompts]
            index += sorted(entries, key=lambda entry: entry[2])
        return index

    def _read_part(self, i: int, name: str) -> dict[int, Row]:
        run = self._runs[i]
        tables = {table: run.read(table, name) for table in TABLES}
        return dict(from_tables(tables, run.info, {table: run.part(table, name) for table in TABLES}))


@dataclasses.dataclass(frozen=True)
class StoredTrace(Trace):
    """A stored run, or several runs of one dataset, read lazily.

    Attributes:
      rows: rows of all runs, in the order of the runs.
      info: `Trace.info` of the run; for several runs, the entries on which they agree, and "complete" if all are.
      runs: runs that it contains.
      only: numbers of the prompts to which it is filtered; None for all.
    """

    runs: tuple[StoredRun, ...] = ()
    only: frozenset[int] | None = None

    @classmethod
    def of(cls, runs: Sequence[StoredRun], only: frozenset[int] | None = None) -> StoredTrace:
        """Combine runs into one trace, filtered to the prompts in `only` if given."""
        first, *others = (run.info for run in runs)
        info = {key: x for key, x in first.items() if all(key in other and other[key] == x for other in others)}
        info["complete"] = all(run.info["complete"] for run in runs)
        return cls(StoredRows(runs, only), info, tuple(runs), only)

    def filter(
        self, *, prompts: int | Iterable[int] | None = None, **keys: str | float | Iterable[str | float]
    ) -> StoredTrace:
        """Select runs and prompts without reading a table.

        Args:
          prompts: numbers of prompts.
          keys: accepted values of the runs' partition keys: model="demo", or several: task=("gsm8k", "mmlu").

        Raises:
          StoreError: no run has such a key or value; the message lists the existing values.
        """
        runs = list(self.runs)
        for key, accepted in keys.items():
            several = accepted if isinstance(accepted, Iterable) and not isinstance(accepted, str) else [accepted]
            values = {str(x) for x in several}
            existing = sorted({run.keys[key] for run in runs if key in run.keys})
            runs = [run for run in runs if run.keys.get(key) in values]
            if not runs:
                choices = f"there are: {', '.join(existing)}" if existing else "no run has such a key"
                raise StoreError(f"{self.runs[0].root}: no run with {key}={' or '.join(sorted(values))}; {choices}")
        only = self.only
        if prompts is not None:
            numbers = frozenset(prompts if isinstance(prompts, Iterable) else [prompts])
            only = numbers if only is None else numbers & only
        return StoredTrace.of(runs, only)

    @property
    def texts(self) -> list[str]:
        """Completions (generate) or texts (score)."""
        return cast(StoredRows, self.rows).column("completion")

    @property
    def lengths(self) -> list[int]:
        """Number of steps of each row."""
        return cast(StoredRows, self.rows).lengths

    @property
    def metrics_versions(self) -> tuple[int, ...]:
        """Versions of the metrics' definitions by which the runs were measured, each once."""
        return tuple(sorted({run.metrics_version for run in self.runs}))

    @property
    def prompt_steps(self) -> list[int]:
        """Number of steps of each row that are prompt positions."""
        rows = cast(StoredRows, self.rows)
        return rows.column("prompt_steps") if self.info.get("prompt_positions") else [0] * len(rows)

    @property
    def tokens(self) -> ds.Dataset:
        """Tokens table, unread: `tokens.to_table(columns=["entropy"], filter=ds.field("step") == 0)`."""
        return self._dataset("tokens")

    @property
    def layers(self) -> ds.Dataset:
        """Layers table, unread."""
        return self._dataset("layers")

    @property
    def prompts(self) -> ds.Dataset:
        """Prompts table, unread."""
        return self._dataset("prompts")

    def to_xarray(self) -> xr.Dataset:
        """Return the xarray of `Trace.to_xarray`; raises StoreError if runs differ in the dims of their metrics."""
        self._check_alike()
        return super().to_xarray()

    @property
    def num_layers(self) -> int:
        """Number of layers of the model; raises StoreError if runs differ."""
        self._check_alike()
        return super().num_layers

    @property
    def traced_layers(self) -> tuple[int, ...]:
        """Layers, from 1, whose metrics were recorded; raises StoreError if runs differ."""
        self._check_alike()
        return super().traced_layers

    def _check_alike(self) -> None:
        if differing := [key for key in SAME_DIMS if any(run.info.get(key) != self.info.get(key) for run in self.runs)]:
            raise StoreError(
                f"{self.runs[0].root}: the runs differ in {' and '.join(differing)}; filter to those that agree"
            )

    def _dataset(self, table: str) -> ds.Dataset:
        root, names = self.runs[0].root, dict.fromkeys(key for run in self.runs for key in run.keys)
        keys = pa.schema([(key, pa.string()) for key in names])
        paths = [run.part(table, name) for run in self.runs for name in run.parts]
        schemas = [run.verify(table) for run in self.runs if run.parts]
        schemas = schemas or [pa.schema([("prompt", pa.int32())])]  # no prompt is finished
        if any(run.id is None for run in self.runs):  # nothing else shows that a part was copied
            len(self.rows)
        dataset = ds.dataset(
            [path.path for path in paths],
            schema=pa.unify_schemas([*schemas, keys]),
            format=CHECKED_PARQUET,
            filesystem=root.fs,
            partitioning=ds.partitioning(keys, flavor="hive"),
            partition_base_dir=(root / table).path,
        )
        return dataset if self.only is None else dataset.filter(ds.field("prompt").isin(sorted(self.only)))


def split_runs(trace: Trace) -> dict[str, Trace]:
    """Return the runs of a dataset, such as a sweep's, by partition; another trace itself, by the name ""."""
    if isinstance(trace, StoredTrace) and len(trace.runs) > 1:
        return {run.partition: StoredTrace.of([run], trace.only) for run in trace.runs}
    return {"": trace}


def open_trace(root: str | Path) -> StoredTrace:
    """Open a stored run, or the dataset of a sweep; an interrupted run opens with its complete parts.

    This reads the descriptions of runs and the names of parts; everything else is read on access.

    Args:
      root: directory, or its fsspec URL.

    Returns:
      The rows in the order of their prompts, exactly as they were written (precision "float16" rounds floats). `info`
      is as it was written, with lists for tuples, and with "complete": False if the run did not reach its end. `meta`
      of a prompt has lists for tuples too.

    Raises:
      StoreError: the directory holds no trace, or one of another format; one line that names it. Reading a damaged file
        raises it later.
    """
    place = Location.of(root)
    if not (partitions := find_partitions(place)):
        raise StoreError(f"{place}: not a trace directory, it has no {RUN}; name one that does")
    runs = {partition: read_run(place, partition) for partition in partitions}
    # The descriptions first and the tables from the last written one: a run may be written meanwhile.
    files = {table: (place / table).files() for table in reversed(TABLES)}
    trace = StoredTrace.of([_stored_run(place, partition, run, files) for partition, run in runs.items()])
    if note := definition_note(trace.metrics_versions):
        warnings.warn(one_line(f"{place}: {note}"), stacklevel=2)
    return trace


def is_trace(root: str | Path) -> bool:
    """Return True if a trace can be opened there; False for an unknown file system."""
    try:
        return bool(find_partitions(Location.of(root)))
    except (StoreError, OSError):
        return False


def _stored_run(root: Location, partition: str, run: dict[str, Any], files: dict[str, dict[str, int]]) -> StoredRun:
    info = run["info"] | {"complete": run["complete"]}
    if "alphas" in info:
        info["alphas"] = [float(alpha) for alpha in info["alphas"]]
    run_files = {
        table: {path.rpartition("/")[2]: size for path, size in sizes.items() if path.rpartition("/")[0] == partition}
        for table, sizes in files.items()
    }
    parts = tuple(complete_parts(run_files))
    # An incomplete run may lack a file: its writer was killed, or deletes a part. Resuming it repeats the prompts.
    committed = [name for name in run_files["prompts"] if is_part(name)] if run["complete"] else []
    if (missing := max(len(committed), run["parts"] or 0) - len(parts)) > 0:
        raise StoreError(
            f"{run_path(root, partition)}: {missing} of {missing + len(parts)} parts lack the file of a table; "
            "restore it, or resume the run, which repeats their prompts"
        )
    size = sum(run_files[table][name] for table in TABLES for name in parts)
    return StoredRun(
        *(root, partition, info, run["config"], run["precision"], parts, size, run["metrics_version"], run["id"])
    )
