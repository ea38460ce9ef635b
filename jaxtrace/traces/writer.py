"""Writes a trace as it is made, so that what is finished survives whatever comes next."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jaxtrace.errors import StoreError
from jaxtrace.schema import METRICS_VERSION, changed_between
from jaxtrace.traces.location import Location
from jaxtrace.traces.parts import TABLES, part_name, part_number, part_prompts, whole_parts, write_part
from jaxtrace.traces.run_json import FORMAT, RUN, plain, read_run, run_path, write_run
from jaxtrace.traces.tables import PRECISIONS, SHAPE, to_tables
from jaxtrace.traces.trace import Row, Trace

MADE_OF = ("checkpoint", "prompts", "lens")
BATCH = 64


class TraceWriter:
    """A run open for writing; a context manager that marks it complete when it ends well.

    Attributes:
      root: the directory of the trace, or of the dataset that the run is a part of.
      done: the numbers of the prompts that are stored, whole, by any process.
    """

    def __init__(
        self,
        root: str | Path,
        info: dict[str, Any],
        config: dict[str, Any] | None = None,
        *,
        resume: bool = False,
        partition: str = "",
        precision: str = "float32",
        process: int | None = None,
        metrics_version: int = METRICS_VERSION,
    ):
        """Starts a run, or goes on with one.

        Args:
          root: a local directory or any fsspec URL ("s3://bucket/study"); made if need be. Without a partition it is
            empty, or with `resume` holds a run to go on with.
          info: `Trace.info` of the trace to come.
          config: all that was asked for; a run is resumed only under an equal one.
          resume: go on with the run that is there, after removing what it did not finish and parts that are damaged;
            where there is none, start one. The stored info stays.
          partition: where the run is one of many in a dataset, its place among them, from `partition_of`:
            "model=demo/task=quiz". Its parts are `ROOT/TABLE/PARTITION/part-00000.parquet`, its description
            `ROOT/runs/PARTITION/run.json`.
          precision: "float32", or "float16" for floats rounded to the 11 significant bits of a float16.
          process: which of several processes this is, None for a single one. Each writes parts of its own; process 0
            also starts, mends and completes the run, so it is made before those of the others, and closed after.
          metrics_version: version of the definitions by which the rows were measured.

        Raises:
          StoreError: there is another run or other files, the place cannot be written, or is to be resumed under
            another configuration; the message names the first field that differs.
        """
        if precision not in PRECISIONS:
            raise StoreError(f"no precision {precision!r}; there are: {', '.join(PRECISIONS)}")
        self.root = Location.of(root)
        self.done: set[int] = set()
        self._partition, self._process = partition, process
        self._tables = {table: self.root / table / partition for table in TABLES}
        self._part = 0
        self._run = {
            "format": FORMAT,
            "complete": False,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "precision": precision,
            "metrics_version": metrics_version,
            "info": plain(info),
            "config": plain(config),
        }
        self._info = info
        with self._explained("name a directory that can be written"):
            if self._leading:
                self._begin(resume)
            elif not self.root.fs.exists(run_path(self.root, partition).path):
                raise StoreError(
                    f"{self.root}: process {process} sees no run there; name a place that all processes see"
                )
            self._count()

    def write(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Appends finished rows as one part; when this returns, they are stored.

        Args:
          rows: at least one, each with the number of its prompt.

        Raises:
          StoreError: the disk is full or cannot be written; the parts finished before stay readable.
        """
        name = part_name(self._part, self._process)
        tables = to_tables(rows, self._info, self._run["precision"])
        with self._explained("the parts already finished stay readable; make room or mend it, then resume"):
            for table in TABLES:
                write_part(self._tables[table] / name, tables[table])
        self._part += 1
        self.done.update(number for number, _ in rows)

    def close(self) -> None:
        """Marks the run complete, where this process leads.

        Raises:
          StoreError: the disk is full or cannot be written.
        """
        self._run["complete"] = True
        if self._leading:
            with self._explained("the parts already finished stay readable; make room, then resume"):
                write_run(self.root, self._partition, self._run)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    @property
    def _leading(self) -> bool:
        return self._process in (None, 0)

    def _begin(self, resume: bool) -> None:
        """Describes the run, new or old, as incomplete."""
        root, path = self.root, run_path(self.root, self._partition)
        if root.fs.isfile(root.path):
            raise StoreError(f"{root}: is a file; name a directory for the trace")
        if self._partition and root.fs.exists((root / RUN).path):
            raise StoreError(f"{root}: holds one run, not a dataset of several; name another directory")
        if path.fs.exists(path.path):
            if not resume:
                raise StoreError(f"{path.parent}: already holds a run; resume it, or name another directory")
            self._run = self._agreed(read_run(root, self._partition))
        elif any(name != f".{RUN}.tmp" for name in self._names_in_the_way(path.parent)):
            raise StoreError(f"{root}: holds files that are no trace; name an empty directory or a new one")
        root.fs.makedirs(path.parent.path, exist_ok=True)
        write_run(root, self._partition, self._run)
        for folder in self._tables.values():
            root.fs.makedirs(folder.path, exist_ok=True)

    def _names_in_the_way(self, own: Location) -> list[str]:
        """Of files where this run is to be."""
        return [name for folder in (own, *self._tables.values()) for name in folder.names()]

    def _agreed(self, stored: dict[str, Any]) -> dict[str, Any]:
        """The description of a run that is to go on."""
        if difference := _first_difference("", _must_agree(stored), _must_agree(self._run)):
            field, was, now = difference
            raise StoreError(
                f"{self.root}: {field} is {was} in the run there and {now} in this one; "
                "resume with the same configuration, or name another directory"
            )
        versions = stored["metrics_version"], self._run["metrics_version"]
        if changed := changed_between(*versions):
            raise StoreError(
                f"{self.root}: metrics_version is {versions[0]} in the run there and {versions[1]} in this one, which "
                f"define {', '.join(changed)} differently; resume with the version of jaxtrace that wrote it, or name "
                "another directory"
            )
        return stored | {"complete": False}

    def _count(self) -> None:
        """Finds what is done; the leading process removes what is not whole."""
        names = {table: folder.names() for table, folder in self._tables.items()}
        found = {name: part_prompts(self._tables, name) for name in whole_parts(names)}
        whole = {name: prompts for name, prompts in found.items() if prompts is not None}
        for table, folder in self._tables.items():
            for name in names[table]:
                if self._leading and "part-" in name and name not in whole:
                    path = folder / name
                    path.fs.rm_file(path.path)
        self.done.update(*whole.values())
        self._part = max((part_number(name)[-1] + 1 for name in whole), default=0)

    @contextmanager
    def _explained(self, remedy: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())
            raise StoreError(f"{error.filename or self.root}: {reason}; {remedy}") from error


def save(trace: Trace, root: str | Path, precision: str = "float32") -> None:
    """Writes a whole trace; a trace that is marked incomplete stays so.

    Raises:
      StoreError: there is a run or other files, or the place cannot be written.
    """
    info = {key: value for key, value in trace.info.items() if key != "complete"}
    writer = TraceWriter(root, info, precision=precision, metrics_version=min(trace.metrics_versions))
    for start in range(0, len(trace.rows), BATCH):
        writer.write([*enumerate(trace.rows[start : start + BATCH], start)])
    if trace.info.get("complete", True):
        writer.close()


def _must_agree(run: dict[str, Any]) -> dict[str, Any]:
    """The configuration, what gives the tables their columns, hashes of weights and prompts; versions may differ."""
    info = {key: run["info"].get(key) for key in (*SHAPE, *MADE_OF)}
    return {"config": run["config"], "info": info, "precision": run["precision"]}


def _first_difference(field: str, old: Any, new: Any) -> tuple[str, str, str] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            if difference := _first_difference(f"{field}.{key}".lstrip("."), old.get(key), new.get(key)):
                return difference
        return None
    return None if old == new else (field, _brief(old), _brief(new))


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
