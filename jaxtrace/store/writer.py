"""Writes a trace as it is made, so that what is finished survives whatever comes next."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jaxtrace.errors import StoreError
from jaxtrace.store.parts import TABLES, part_name, part_number, read_part, whole_parts, write_part
from jaxtrace.store.run import FORMAT, RUN, plain, read_run, write_run
from jaxtrace.store.tables import to_tables
from jaxtrace.tracing.trace import Row, Trace

SHAPE = ("mode", "layers", "heads", "alphas", "checkpoint", "prompts")
BATCH = 64


class TraceWriter:
    """A trace directory open for writing; a context manager that marks the run complete when it ends well.

    Attributes:
      directory: where it writes.
      done: the numbers of the prompts that are on the disk, whole.
    """

    def __init__(
        self,
        directory: str | Path,
        info: dict[str, Any],
        config: dict[str, Any] | None = None,
        *,
        resume: bool = False,
    ):
        """Starts a run, or goes on with one.

        Args:
          directory: made if need be; empty, or with `resume` a run to go on with.
          info: `Trace.info` of the trace to come.
          config: all that was asked for; a run is resumed only under an equal one.
          resume: go on with the run in `directory`, after removing what it did not finish; without a run
            there, start one. The stored info stays.

        Raises:
          StoreError: the directory holds another run or other files, cannot be written, or is to be resumed
            under another configuration; the message names the first field that differs.
        """
        self.directory = Path(directory)
        self.done: set[int] = set()
        self._part = 0
        self._run = {
            "format": FORMAT,
            "complete": False,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "info": plain(info),
            "config": plain(config),
        }
        self._info = info
        with _explained(self.directory, "name a directory that can be written"):
            self._make_directories(resume)

    def write(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Appends finished rows as one part; when this returns, they are on the disk.

        Args:
          rows: at least one, each with the number of its prompt.

        Raises:
          StoreError: the disk is full or cannot be written; the parts finished before stay readable.
        """
        name = part_name(self._part)
        tables = to_tables(rows, self._info)
        remedy = "the parts already finished stay readable; make room or mend it, then resume"
        with _explained(self.directory, remedy):
            for table in TABLES:
                write_part(self.directory / table / name, tables[table])
        self._part += 1
        self.done.update(number for number, _ in rows)

    def close(self) -> None:
        """Marks the run complete.

        Raises:
          StoreError: the disk is full or cannot be written.
        """
        self._run["complete"] = True
        with _explained(self.directory, "the parts already finished stay readable; make room, then resume"):
            write_run(self.directory, self._run)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    def _make_directories(self, resume: bool) -> None:
        directory = self.directory
        if directory.exists() and not directory.is_dir():
            raise StoreError(f"{directory}: is a file; name a directory for the trace")
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / RUN).exists():
            if not resume:
                raise StoreError(f"{directory}: already holds a run; resume it, or name another directory")
            self._resume()
        elif any(path.name != f".{RUN}.tmp" for path in directory.iterdir()):
            raise StoreError(f"{directory}: holds files that are no trace; name an empty directory or a new one")
        else:
            write_run(directory, self._run)
        for table in TABLES:
            (directory / table).mkdir(exist_ok=True)

    def _resume(self) -> None:
        stored = read_run(self.directory)
        if difference := _first_difference("", _must_agree(stored), _must_agree(self._run)):
            field, was, now = difference
            raise StoreError(
                f"{self.directory}: {field} is {was} in the run there and {now} in this one; "
                "resume with the same configuration, or name another directory"
            )
        self._run = stored | {"complete": False}
        write_run(self.directory, self._run)
        whole = whole_parts(self.directory)
        for table in TABLES:
            for path in (self.directory / table).glob("*part-*.parquet*"):
                if path.name not in whole:
                    path.unlink()
        for name in whole:
            self.done.update(read_part(self.directory / "prompts" / name, ["prompt"])["prompt"].to_pylist())
            self._part = part_number(name) + 1


def save(trace: Trace, directory: str | Path) -> None:
    """Writes a whole trace; a trace that is marked incomplete stays so.

    Raises:
      StoreError: the directory holds a run or other files, or cannot be written.
    """
    info = {key: value for key, value in trace.info.items() if key != "complete"}
    writer = TraceWriter(directory, info)
    numbered = list(enumerate(trace.rows))
    for start in range(0, len(numbered), BATCH):
        writer.write(numbered[start : start + BATCH])
    if trace.info.get("complete", True):
        writer.close()


def _must_agree(run: dict[str, Any]) -> dict[str, Any]:
    """The configuration, what gives the tables their columns, hashes of weights and prompts; versions may differ."""
    return {"config": run["config"], "info": {key: run["info"].get(key) for key in SHAPE}}


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


@contextmanager
def _explained(directory: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise StoreError(f"{error.filename or directory}: {reason}; {remedy}") from error
