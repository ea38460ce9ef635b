"""`sweep.json`: the state of every cell of a sweep."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from jaxtrace.documents import MAX_JSON, decode_json, first_problem
from jaxtrace.errors import StoreError, reason_of
from jaxtrace.files import LOCK
from jaxtrace.parallel.processes import is_leader, time_of_leader
from jaxtrace.sweeping.cells import Cell
from jaxtrace.traces.location import Location
from jaxtrace.traces.parts import TABLES
from jaxtrace.traces.run_json import RUNS

FORMAT = 1
NAME = "sweep.json"
State = Literal["waiting", "running", "complete", "failed"]
Count = Annotated[int, Field(strict=True, ge=0, le=10**15)]
Text = Annotated[str, Field(strict=True)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CellRecord:
    """State of a cell.

    Attributes:
      state: stage of the run; a cell in which the sweep was killed stays "running".
      prompts: SHA-256 of the prompts' token ids.
      rows: number of traced prompts of a complete cell.
      tokens: number of traced steps of a complete cell.
      tokens_per_second: rate of the last run, without compilation.
      error: reason of a failure, in one line.
    """

    state: State = "waiting"
    prompts: Text = ""
    rows: Count = 0
    tokens: Count = 0
    tokens_per_second: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    error: Text | None = None


class _Content(BaseModel):
    """Entries of sweep.json; that of an older version lacks the date."""

    model_config = ConfigDict(extra="forbid")

    format: Annotated[int, Field(strict=True)]
    date: Text | None = None
    cells: dict[str, CellRecord]


class Manifest:
    """Records of a dataset's cells, by partition; every change is written at once.

    Attributes:
      records: record of each cell by its partition.
      date: current time for chat templates: when the sweep was first started.
    """

    def __init__(self, root: Location) -> None:
        """Read a dataset's manifest; without one, start empty.

        Raises:
          StoreError: the file cannot be read, is broken, or has another version of jaxtrace's format; or the
            directory holds something else.
        """
        self._root, self._place = root, root / NAME
        self.records: dict[str, CellRecord] = {}
        self.date = time_of_leader()
        names = {*root.names()}
        if root.fs.isfile(root.path):
            raise StoreError(f"{root}: is a file; name a directory for the sweep")
        if NAME not in names:
            if others := names - {*TABLES, RUNS, f".{NAME}.tmp", LOCK}:
                raise StoreError(f"{root}: holds {min(others)} and no sweep; name an empty directory or a new one")
            return
        try:
            stored = decode_json(self._place.read(MAX_JSON))
            number = stored.get("format", FORMAT) if isinstance(stored, dict) else FORMAT
            if number != FORMAT and type(number) is int:
                raise StoreError(
                    f"{self._place}: has format {number!s:.20}, but this version reads format {FORMAT}; "
                    "continue with the version of jaxtrace that wrote it, or name another directory"
                )
            content = _Content.model_validate(stored)
            if content.date is not None:
                self.date = datetime.fromisoformat(content.date)
        except OSError as error:
            raise StoreError(f"{self._place}: {reason_of(error)}; make it readable") from error
        except ValueError as error:
            reason = first_problem(error) if isinstance(error, ValidationError) else error
            raise StoreError(
                f"{self._place}: is not a sweep's record ({reason}); restore it, or delete it to check all cells again"
            ) from error
        self.records = content.cells

    def of(self, cell: Cell) -> CellRecord:
        """Return the record of a cell; a new cell is waiting."""
        return self.records.get(cell.partition, CellRecord())

    def others(self, cells: Sequence[Cell]) -> list[str]:
        """Return the partitions of the dataset that belong to no cell of these."""
        return sorted(self.records.keys() - {cell.partition for cell in cells})

    def update(self, cell: Cell, **changes: Any) -> None:
        """Change fields of a cell's record."""
        self.records[cell.partition] = dataclasses.replace(self.of(cell), **changes)
        self.write()

    def write(self) -> None:
        """Write the manifest atomically; only the leading process writes.

        Raises:
          StoreError: the disk is full or not writable.
        """
        if not is_leader():
            return
        cells = {place: dataclasses.asdict(record) for place, record in self.records.items()}
        content = {"format": FORMAT, "date": self.date.isoformat(), "cells": cells}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        try:
            self._root.fs.makedirs(self._root.path, exist_ok=True)
            with self._place.writing() as file:
                file.write(text.encode())
        except OSError as error:
            raise StoreError(
                f"{self._place}: {reason_of(error)}; make room or fix the disk, and run the same command again"
            ) from error
