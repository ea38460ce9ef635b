"""Stored traces, read when they are asked for: one run, or a dataset of many."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any, cast, overload

import pyarrow as pa
import pyarrow.dataset as ds
import xarray as xr

from jaxtrace.errors import StoreError
from jaxtrace.schema import definition_note
from jaxtrace.traces.location import Location
from jaxtrace.traces.parts import CHECKED, TABLES, read_part, read_schema, whole_parts
from jaxtrace.traces.run_json import RUN, find_partitions, keys_of, read_run
from jaxtrace.traces.tables import SHAPE, from_tables
from jaxtrace.traces.trace import Row, Trace

KEPT = 8  # parts in memory
NEEDED = ("probes", *SHAPE)  # of info, for arrays of rows of several runs


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """One run of a dataset.

    Attributes:
      root: of the dataset.
      partition: its place in that; "" where it is the only one.
      info: of its trace, with "complete".
      config: all that was asked for.
      precision: of its floats.
      parts: names of its whole parts.
      size: bytes of these.
      metrics_version: version of the definitions by which its rows were measured.
    """

    root: Location
    partition: str
    info: dict[str, Any]
    config: dict[str, Any] | None
    precision: str
    parts: tuple[str, ...]
    size: int
    metrics_version: int = 1

    @property
    def keys(self) -> dict[str, str]:
        """What its partition says: its model, its task, …"""
        return keys_of(self.partition)

    def part(self, table: str, name: str) -> Location:
        """Where a part of a table lies."""
        return self.root / table / self.partition / name


class StoredRows(Sequence[Row]):
    """Rows in the order of runs, and of prompts in a run. A part is read when a row of it is needed; few are kept."""

    def __init__(self, runs: Sequence[StoredRun], prompts: Container[int] | None):
        self._runs, self._prompts = runs, prompts
        self._part = functools.lru_cache(KEPT)(self._read_part)

    @functools.cached_property
    def lengths(self) -> list[int]:
        """Numbers of steps."""
        return self.column("length")

    def column(self, name: str) -> list[Any]:
        """A column of the table of prompts."""
        columns = {}
        for i, part in dict.fromkeys((i, part) for i, part, _ in self._index):
            found = read_part(self._runs[i].part("prompts", part), ["prompt", name]).to_pydict()
            columns[i, part] = dict(zip(found["prompt"], found[name], strict=True))
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
        """(number of the run, part, prompt) of every row."""
        found = []
        for i, run in enumerate(self._runs):
            of_run = []
            for name in run.parts:
                prompts = read_part(run.part("prompts", name), ["prompt"])["prompt"].to_pylist()
                of_run += [(i, name, prompt) for prompt in prompts if self._prompts is None or prompt in self._prompts]
            found += sorted(of_run, key=lambda entry: entry[2])
        return found

    def _read_part(self, i: int, name: str) -> dict[int, Row]:
        run = self._runs[i]
        return dict(from_tables({table: read_part(run.part(table, name)) for table in TABLES}, run.info))


@dataclasses.dataclass(frozen=True)
class StoredTrace(Trace):
    """A trace on a disk, or several of one dataset. Rows and tables are read when they are asked for.

    Attributes:
      rows: of all runs, in their order.
      info: of the run; of several, what they agree on, and whether all are complete.
      runs: those it is of.
      only: numbers of the prompts it is narrowed to; None for all.
    """

    runs: tuple[StoredRun, ...] = ()
    only: frozenset[int] | None = None

    @classmethod
    def of(cls, runs: Sequence[StoredRun], only: frozenset[int] | None = None) -> StoredTrace:
        """That of some runs, and of some of their prompts."""
        first, *others = (run.info for run in runs)
        info = {key: x for key, x in first.items() if all(key in other and other[key] == x for other in others)}
        info["complete"] = all(run.info["complete"] for run in runs)
        return cls(StoredRows(runs, only), info, tuple(runs), only)

    def filter(
        self, *, prompts: int | Iterable[int] | None = None, **keys: str | float | Iterable[str | float]
    ) -> StoredTrace:
        """A part of it, found without reading a table.

        Args:
          prompts: numbers of prompts.
          keys: what a run's partition must say: model="demo", or one of several: task=("gsm8k", "mmlu").

        Raises:
          StoreError: no run has such a key or such a value; the message lists those there are.
        """
        runs = list(self.runs)
        for key, wanted in keys.items():
            several = wanted if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [wanted]
            values = {str(x) for x in several}
            there = sorted({run.keys[key] for run in runs if key in run.keys})
            runs = [run for run in runs if run.keys.get(key) in values]
            if not runs:
                some = f"there are: {', '.join(there)}" if there else "no run has such a key"
                raise StoreError(f"{self.runs[0].root}: no run with {key}={' or '.join(sorted(values))}; {some}")
        only = self.only
        if prompts is not None:
            asked = frozenset(prompts if isinstance(prompts, Iterable) else [prompts])
            only = asked if only is None else asked & only
        return StoredTrace.of(runs, only)

    @property
    def texts(self) -> list[str]:
        """The completions (generate) or texts (score)."""
        return cast(StoredRows, self.rows).column("completion")

    @property
    def lengths(self) -> list[int]:
        """The number of steps of each row."""
        return cast(StoredRows, self.rows).lengths

    @property
    def metrics_versions(self) -> tuple[int, ...]:
        """Versions of the metrics' definitions by which the runs were measured, each once."""
        return tuple(sorted({run.metrics_version for run in self.runs}))

    @property
    def prompt_steps(self) -> list[int]:
        """How many steps of each row are positions of its prompt."""
        rows = cast(StoredRows, self.rows)
        return rows.column("prompt_steps") if self.info.get("prompt_positions") else [0] * len(rows)

    @property
    def tokens(self) -> ds.Dataset:
        """The table of tokens, unread: `tokens.to_table(columns=["entropy"], filter=ds.field("step") == 0)`."""
        return self._dataset("tokens")

    @property
    def layers(self) -> ds.Dataset:
        """The table of tokens and layers, unread."""
        return self._dataset("layers")

    @property
    def prompts(self) -> ds.Dataset:
        """The table of prompts, unread."""
        return self._dataset("prompts")

    def to_xarray(self) -> xr.Dataset:
        """As `Trace.to_xarray`; raises StoreError where runs differ in the dimensions of their metrics."""
        self._check_alike()
        return super().to_xarray()

    @property
    def traced_layers(self) -> tuple[int, ...]:
        """As `Trace.traced_layers`; raises StoreError where runs differ."""
        self._check_alike()
        return super().traced_layers

    def _check_alike(self) -> None:
        if differing := [key for key in NEEDED if any(run.info.get(key) != self.info.get(key) for run in self.runs)]:
            raise StoreError(
                f"{self.runs[0].root}: the runs differ in {' and '.join(differing)}; filter to those that agree"
            )

    def _dataset(self, table: str) -> ds.Dataset:
        root, keys = self.runs[0].root, pa.schema([(key, pa.string()) for key in self.runs[0].keys])
        paths = [run.part(table, name) for run in self.runs for name in run.parts]
        firsts = [read_schema(run.part(table, run.parts[0])) for run in self.runs if run.parts]
        found = ds.dataset(
            [path.path for path in paths],
            schema=pa.unify_schemas([*firsts, keys]),
            format=CHECKED,
            filesystem=root.fs,
            partitioning=ds.partitioning(keys, flavor="hive"),
            partition_base_dir=(root / table).path,
        )
        return found if self.only is None else found.filter(ds.field("prompt").isin(sorted(self.only)))


def open_trace(root: str | Path) -> StoredTrace:
    """Opens what a trace or a sweep wrote; of a run that was cut off, whatever it finished.

    Descriptions of runs and names of parts are read now, the rest when it is asked for.

    Args:
      root: the directory, or its URL.

    Returns:
      The rows in the order of their prompts, exactly as they were (but for the digits that "float16" leaves out).
      `info` is as it was written, with tuples as lists, and with "complete": False where the run did not reach its
      end. `meta` of a prompt has lists for tuples too.

    Raises:
      StoreError: not a trace directory, or one of another format; one line that names it. A damaged file is
        told of so when it is read.
    """
    place = Location.of(root)
    if not (partitions := find_partitions(place)):
        raise StoreError(f"{place}: not a trace directory, it has no {RUN}; name one that does")
    files = {table: (place / table).files() for table in TABLES}
    trace = StoredTrace.of([_stored_run(place, partition, files) for partition in partitions])
    if note := definition_note(trace.metrics_versions):
        warnings.warn(f"{place}: {note}", stacklevel=2)
    return trace


def is_trace(root: str | Path) -> bool:
    """Whether a trace can be opened there; a name that is no place is none."""
    try:
        return bool(find_partitions(Location.of(root)))
    except (StoreError, OSError):
        return False


def _stored_run(root: Location, partition: str, files: dict[str, dict[str, int]]) -> StoredRun:
    run = read_run(root, partition)
    info = run["info"] | {"complete": run["complete"]}
    if "alphas" in info:
        info["alphas"] = [float(alpha) for alpha in info["alphas"]]
    own = {
        table: {path.rpartition("/")[2]: size for path, size in of.items() if path.rpartition("/")[0] == partition}
        for table, of in files.items()
    }
    parts = tuple(whole_parts(own))
    size = sum(own[table][name] for table in TABLES for name in parts)
    return StoredRun(root, partition, info, run["config"], run["precision"], parts, size, run["metrics_version"])
