"""Writer of a trace during its run: what is written survives a crash."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jaxtrace.errors import StoreError, reason_of
from jaxtrace.files import LOCK
from jaxtrace.lock import WriteLock
from jaxtrace.schema import METRICS_VERSION, changed_between
from jaxtrace.traces.location import Location
from jaxtrace.traces.parts import TABLES, count_problem, part_name, part_number, read_lengths, sealed, write_part
from jaxtrace.traces.row import Row
from jaxtrace.traces.run_json import RUN, new_run, read_run, run_path, to_json_value, write_run
from jaxtrace.traces.tables import PRECISIONS, SHAPE, to_tables

INPUTS = ("checkpoint", "prompts", "lens", "dtype")  # entries of `Trace.info` on which the rows depend
ADDED = ("dtype", "prompt_format", "windows")  # entries of `Trace.info` that older runs lack
SHARED_DISK_SECONDS = (1, 5, 30)  # waits until a shared disk shows the parts of other processes


class TraceWriter:
    """A run open for writing; as a context manager it marks the run complete on a normal exit.

    No other writer can open the run until this one is closed, left as a context manager, or garbage-collected.

    Attributes:
      root: directory of the trace, or of the dataset that contains the run.
      done: numbers of the prompts that any process has stored completely.
      lengths: number of steps of every stored prompt, by the prompt's number; empty until the run is closed.
      compiled: compilations of the run, stored in `info` when it is closed; None if they were not counted.
    """

    def __init__(
        self,
        root: str | Path,
        info: dict[str, Any],
        config: dict[str, Any] | None = None,
        *,
        defaults: dict[str, Any] | None = None,
        resume: bool = False,
        partition: str = "",
        precision: str = "float32",
        process: int | None = None,
        metrics_version: int = METRICS_VERSION,
        prompts: int | None = None,
        lock: WriteLock | None = None,
    ) -> None:
        """Start a run, or resume one.

        Args:
          root: local directory or fsspec URL ("s3://bucket/study"), created if needed. Without a partition it must be
            empty, or with `resume` may hold a run.
          info: `Trace.info` of the new trace.
          config: complete configuration of the run; a run resumes only under an equal one.
          defaults: values of the fields of `config` that the run of an older version of jaxtrace lacks.
          resume: True resumes an existing run after deleting its partial and damaged parts, or starts a run if there is
            none. The stored info is kept.
          partition: place of the run in a dataset of many, from `partition_of`: "model=demo/task=quiz"; "" for a single
            run. The parts are `ROOT/TABLE/PARTITION/part-00000.parquet`, the description is
            `ROOT/runs/PARTITION/run.json`.
          precision: "float32", or "float16" for floats rounded to the 11 significant bits of a float16.
          process: number of this process among several, None for a single one. Each process writes its own parts.
            Process 0 also starts, repairs and completes the run: create it before the others and close it after them.
          metrics_version: version of the definitions by which the rows were measured.
          prompts: number of prompts of the run, all of which must be stored when it is closed; None if it is unknown.
          lock: lock on `root` that the caller holds and frees; None takes one on the run.

        Raises:
          StoreError: the directory holds another run or other files, cannot be written, is being written by another
            program, or holds a run of another configuration; the message names the first field that differs.
        """
        if precision not in PRECISIONS:
            raise StoreError(f"precision {precision!r} is unknown; give one of: {', '.join(PRECISIONS)}")
        self.root = Location.of(root)
        self.done: set[int] = set()
        self.lengths: dict[int, int] = {}
        self.compiled: dict[str, float] | None = None
        self._partition, self._process, self._prompts = partition, process, prompts
        self._tables = {table: self.root / table / partition for table in TABLES}
        self._part = 0
        self._run = new_run(info, config, precision, metrics_version)
        self._info, self._defaults = info, to_json_value(defaults or {})
        self._own = WriteLock(*self._lock_arguments(root)) if lock is None and self._leading else None
        self._lock = lock or self._own
        try:
            with self._store_errors("name a directory that can be written"):
                if self._leading:
                    self._begin(resume)
                elif run_path(self.root, partition).exists():
                    self._run = read_run(self.root, partition)
                else:
                    raise StoreError(
                        f"{self.root}: process {process} sees no run there; name a directory that all processes see"
                    )
                self._find_done()
        except BaseException:
            self.release()
            raise

    def write(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Append finished rows as one part; they are stored when this returns.

        Args:
          rows: (number of the prompt, row) pairs, at least one.

        Raises:
          StoreError: the disk is full or cannot be written; earlier parts stay readable.
        """
        name = part_name(self._part, self._process)
        self._check_lock()
        tables = to_tables(rows, self._info, self._run["precision"])
        with self._store_errors("the parts already finished stay readable; make room or repair the disk, then resume"):
            for table in TABLES:
                part = tables[table] if self._run["id"] is None else sealed(tables[table], self._run["id"], table, name)
                write_part(self._tables[table] / name, part)
        self._part += 1
        self.done.update(number for number, _ in rows)

    def close(self) -> None:
        """Mark the run complete and free it; only the leading process does so.

        Raises:
          StoreError: a prompt is not stored, or stored twice; or the disk is full or cannot be written.
        """
        if not self._leading:
            return
        self._check_lock()
        with self._store_errors("the parts already finished stay readable; make room, then resume"):
            parts, self.lengths = self._count()
            hashed = {"parts": parts} if self._run["id"] is not None else {}
            measured = {} if self.compiled is None else {"compiled": self.compiled}
            info = {"info": self._run["info"] | measured}
            write_run(self.root, self._partition, self._run | hashed | info | {"complete": True})
        self.release()

    def release(self) -> None:
        """Free the run for other writers; a lock that the caller passed stays held."""
        if self._own is not None:
            self._own.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self.release()

    @property
    def _leading(self) -> bool:
        return self._process in (None, 0)

    def _begin(self, resume: bool) -> None:
        """Write the description of the new or resumed run, marked incomplete."""
        root, path = self.root, run_path(self.root, self._partition)
        self._check_lock()
        if self._partition and (root / RUN).exists():
            raise StoreError(f"{root}: holds one run, not a dataset of several; name another directory")
        if path.exists():
            if not resume:
                raise StoreError(f"{path.parent}: already holds a run; resume it, or name another directory")
            self._run = self._resumed(read_run(root, self._partition))
        elif any(name not in (f".{RUN}.tmp", LOCK) for name in self._existing_names(path.parent)):
            raise StoreError(f"{root}: holds files that are no trace; name an empty directory or a new one")
        root.fs.makedirs(path.parent.path, exist_ok=True)
        write_run(root, self._partition, self._run)
        for folder in self._tables.values():
            root.fs.makedirs(folder.path, exist_ok=True)

    def _existing_names(self, description: Location) -> list[str]:
        """Return the names of files in the directories of this run."""
        return [name for folder in (description, *self._tables.values()) for name in folder.names()]

    def _resumed(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the stored description, marked incomplete; raise StoreError if it disagrees with this run."""
        config = stored["config"]
        if config is not None:
            config = self._defaults | config
        added = {name: self._run["info"].get(name) for name in ADDED}
        earlier = stored | {"config": config, "info": added | stored["info"]}
        if difference := _first_difference("", _must_agree(earlier), _must_agree(self._run)):
            field, old, new = difference
            raise StoreError(
                f"{self.root}: {field} is {old} in the run there and {new} in this one; "
                "resume with the same configuration, or name another directory"
            )
        versions = stored["metrics_version"], self._run["metrics_version"]
        if changed := changed_between(*versions):
            raise StoreError(
                f"{self.root}: metrics_version is {versions[0]} in the run there and {versions[1]} in this one, which "
                f"define {', '.join(changed)} differently; resume with the version of jaxtrace that wrote it, or name "
                "another directory"
            )
        return {name: value for name, value in stored.items() if name != "parts"} | {"complete": False}

    def _find_done(self) -> None:
        """Find the stored prompts; the leading process deletes incomplete parts, damaged ones, and repetitions."""
        readable = []
        for name, lengths in read_lengths(self._tables, self._run["id"], whole=True).items():
            numbers = [number for number, _ in lengths or ()]
            if lengths is not None and len({*numbers} - self.done) == len(numbers):
                readable.append(name)
                self.done.update(numbers)
        # The prompts first: a part without them was not finished.
        for folder in reversed(self._tables.values()) if self._leading else ():
            for name in folder.names():
                if "part-" in name and name not in readable:
                    path = folder / name
                    path.fs.rm_file(path.path)
        self._part = max((part_number(name)[-1] + 1 for name in readable), default=0)

    def _count(self) -> tuple[int, dict[int, int]]:
        """Return the numbers of parts and of steps of every prompt; raise StoreError unless each is stored once."""
        for seconds in (*(SHARED_DISK_SECONDS if self._process is not None else ()), None):
            parts = read_lengths(self._tables, self._run["id"], whole=False)
            stored = [pair for lengths in parts.values() for pair in lengths or ()]
            problem = count_problem(stored, self.done if self._prompts is None else range(self._prompts))
            if problem is None and (damaged := [name for name, lengths in parts.items() if lengths is None]):
                problem = f"{damaged[0]} is damaged, or a copy of another part"
            if problem is None:
                return len(parts), dict(stored)
            if seconds is not None:
                time.sleep(seconds)
        place = run_path(self.root, self._partition).parent
        raise StoreError(f"{place}: {problem}; resume the run, which repairs that")

    def _lock_arguments(self, root: str | Path) -> tuple[str, Any, str]:
        place = run_path(self.root, self._partition).parent
        return str(place) if self._partition else str(root), place.fs, place.path

    def _check_lock(self) -> None:
        if self._lock is not None:
            self._lock.check()

    @contextmanager
    def _store_errors(self, advice: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{error.filename or self.root}: {reason_of(error)}; {advice}") from error


def _must_agree(run: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a description that must not change on resume; versions of software may."""
    info = {key: run["info"].get(key) for key in (*SHAPE, *INPUTS)}
    info = {"chat_template": (run["info"].get("prompt_format") or {}).get("template"), **info}
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
