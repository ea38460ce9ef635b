"""`sweep.json`: what of a sweep is done."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxtrace.errors import StoreError
from jaxtrace.parallel.processes import leading
from jaxtrace.sweeping.cells import Cell
from jaxtrace.traces.location import Location
from jaxtrace.traces.parts import TABLES
from jaxtrace.traces.run_json import RUNS

FORMAT = 1
NAME = "sweep.json"
State = Literal["waiting", "running", "complete", "failed"]


@dataclass(frozen=True)
class Record:
    """How far a cell is.

    Attributes:
      state: where it stands; "running" too where the sweep was killed in it.
      prompts: SHA-256 of the token ids that are fed.
      rows: prompts that are traced; of a cell that is complete.
      tokens: steps that are traced; of a cell that is complete.
      tokens_per_second: when it was last worked on, compilation left out.
      error: why it failed, in a line.
    """

    state: State = "waiting"
    prompts: str = ""
    rows: int = 0
    tokens: int = 0
    tokens_per_second: float | None = None
    error: str | None = None


class Manifest:
    """The records of a dataset's cells, by their places in it. What is changed is on the disk at once."""

    def __init__(self, root: Location):
        """Reads that of a dataset; where there is none, it is empty.

        Raises:
          StoreError: it cannot be read, is broken, or is of another version of jaxtrace; the directory holds
            something else.
        """
        self._root, self._place = root, root / NAME
        self.records: dict[str, Record] = {}
        names = {*root.names()}
        if root.fs.isfile(root.path):
            raise StoreError(f"{root}: is a file; name a directory for the sweep")
        if NAME not in names:
            if strange := names - {*TABLES, RUNS, f".{NAME}.tmp"}:
                raise StoreError(f"{root}: holds {min(strange)}, and no sweep; name an empty directory or a new one")
            return
        try:
            stored = json.loads(self._place.fs.cat_file(self._place.path))
            if stored["format"] != FORMAT:
                raise StoreError(
                    f"{self._place}: format {stored['format']}, and this version reads format {FORMAT}; "
                    "go on with the version of jaxtrace that wrote it, or name another directory"
                )
            self.records = {place: Record(**record) for place, record in stored["cells"].items()}
        except OSError as error:
            raise StoreError(f"{self._place}: {error.strerror or error}; make it readable") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self._place}: not a sweep's record; restore it, or delete it to check anew") from error

    def of(self, cell: Cell) -> Record:
        """The record of a cell; of one that is new, that it waits."""
        return self.records.get(cell.partition, Record())

    def others(self, cells: Sequence[Cell]) -> list[str]:
        """Places in the dataset that are none of these cells'."""
        return sorted(self.records.keys() - {cell.partition for cell in cells})

    def update(self, cell: Cell, **changes: Any) -> None:
        """Changes what a cell's record says."""
        self.records[cell.partition] = dataclasses.replace(self.of(cell), **changes)
        self.write()

    def write(self) -> None:
        """Writes it, whole or not at all, if this is the process that leads.

        Raises:
          StoreError: the disk is full or cannot be written.
        """
        if not leading():
            return
        cells = {place: dataclasses.asdict(record) for place, record in self.records.items()}
        text = json.dumps({"format": FORMAT, "cells": cells}, indent=2, ensure_ascii=False) + "\n"
        try:
            self._root.fs.makedirs(self._root.path, exist_ok=True)
            with self._place.writing() as file:
                file.write(text.encode())
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())
            raise StoreError(
                f"{self._place}: {reason}; make room or mend it, and run the same command again"
            ) from error
