"""Running the cells of a sweep, one after another, into one dataset."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrace.checkpoints.huggingface import Checkpoint, default_dtype
from jaxtrace.checkpoints.random import RandomCheckpoint
from jaxtrace.compilation import counted
from jaxtrace.errors import StoreError, first_line
from jaxtrace.model import Model
from jaxtrace.parallel.automatic import chosen_mesh
from jaxtrace.parallel.processes import alike, as_first, barrier, of_several
from jaxtrace.run import Numbered, Run, encode_prompts, open_config_model, start
from jaxtrace.sweeping.cells import Cell
from jaxtrace.sweeping.check import Checked, check, model_key
from jaxtrace.sweeping.manifest import Manifest, Record
from jaxtrace.sweeping.stored import stored_lengths
from jaxtrace.traces.location import Location


class Watch:
    """What is told of a sweep while it runs; a watcher overrides what it wants to hear."""

    def checking(self, cell: Cell) -> None:
        """A cell is about to be checked, before anything runs."""

    def began(self, cell: Cell, total: int, done: int) -> None:
        """A cell begins, so many of whose prompts are done already."""

    def progress(self, prompts: int, tokens: int, entropy: float) -> None:
        """So many more prompts are finished and tokens traced, with this sum of entropies."""

    def rows(self, rows: Numbered) -> None:
        """Rows of the cell are on the disk."""

    def ended(self, cell: Cell, record: Record) -> None:
        """A cell is complete, or has failed."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that is ready to go: every cell checked, the dataset open.

    Attributes:
      root: of the dataset.
      cells: what to run.
      manifest: what of it is done.
    """

    root: Location
    cells: Sequence[Cell]
    manifest: Manifest

    def run(self, watch: Watch) -> None:
        """Runs what is not complete; a cell that fails is recorded with its error, and the next one begins.

        Raises:
          StoreError: the disk is full or the dataset cannot be written; what is complete stays complete.
        """
        held: _Held | None = None
        waiting = as_first(np.array([self.manifest.of(cell).state != "complete" for cell in self.cells]))
        for cell in itertools.compress(self.cells, waiting):
            run: Run | None = None
            try:
                if held is None or held.key != model_key(cell.config):
                    held = None
                    gc.collect()
                    jax.clear_caches()  # each compiled program holds memory maps, of which Linux allows 65,530
                    held = alike(lambda cell=cell: _Held.of(cell))
                run = self._begun(cell, held)
                self._run(cell, run, watch)
            except Exception as error:  # whatever it is, the other cells may do
                if _ends_all(error) or (run is not None and of_several() is not None):  # the others may be in the cell
                    raise
                self.manifest.update(cell, state="failed", error=f"{type(error).__name__}: {first_line(error)}")
            watch.ended(cell, self.manifest.of(cell))

    def _begun(self, cell: Cell, held: _Held) -> Run:
        self.manifest.update(cell, state="running", error=None)
        encoded = alike(lambda: encode_prompts(cell.config, held.checkpoint))
        root, partition = str(self.root), cell.partition
        return start(cell.config, held.checkpoint, held.model, encoded, root, resume=True, partition=partition)

    def _run(self, cell: Cell, run: Run, watch: Watch) -> None:
        watch.began(cell, run.total, run.done)
        traced = 0

        def on_progress(prompts: int, tokens: int, entropy: float) -> None:
            nonlocal traced
            traced += tokens
            watch.progress(prompts, tokens, entropy)

        began = time.monotonic()
        with counted() as compiled:
            run.write(on_progress, watch.rows)
        changes: dict[str, Any] = {}
        if traced:
            changes["tokens_per_second"] = traced / max(time.monotonic() - began - compiled.seconds, 1e-3)
        lengths = stored_lengths(self.root, cell.partition) or []
        self.manifest.update(cell, state="complete", rows=len(lengths), tokens=sum(lengths), **changes)


def _ends_all(error: Exception) -> bool:
    """Whether no other cell can do after this error: the dataset cannot be written."""
    return isinstance(error, StoreError) and isinstance(error.__cause__, OSError)


@dataclass(frozen=True)
class _Held:
    """The model that cells of one after another share."""

    key: tuple[Any, ...]
    checkpoint: Checkpoint | RandomCheckpoint
    model: Model

    @classmethod
    def of(cls, cell: Cell) -> _Held:
        checkpoint = open_config_model(cell.config)
        return cls(model_key(cell.config), checkpoint, Model.of(checkpoint, mesh=cell.config.mesh))


def open_sweep(cells: Sequence[Cell], root: str | Path, watch: Watch) -> Sweep:
    """Checks every cell and opens the dataset, so that what is wrong shows before anything runs.

    Cells that the manifest calls complete, and of whose parts one is missing or cut short, wait again.

    Args:
      cells: from `read_sweep`.
      root: a directory or a URL, made if need be; a sweep that is there goes on.
      watch: is told what is checked.

    Raises:
      JaxtraceError: a model, a task's data or a prompt that cannot be had; a mesh that is not there or does not divide
        a model; a place that cannot be written, or holds something else, another version's sweep, or one of these cells
        with other prompts.
    """
    place = Location.of(root)
    manifest = Manifest(place)
    checked = check(cells, offline=False, on_cell=watch.checking)
    for some in checked:
        if some.config is not None:
            chosen_mesh(some.cell.config.mesh, some.config, np.dtype(default_dtype()).itemsize)
        _confirm(place, manifest, some)
    manifest.write()
    barrier("the sweep is checked")
    return Sweep(place, cells, manifest)


def _confirm(root: Location, manifest: Manifest, checked: Checked) -> None:
    """Holds what the manifest says of a cell against what is known and what is there."""
    cell, record = checked.cell, manifest.of(checked.cell)
    if record.prompts not in ("", checked.hashed):
        raise StoreError(
            f"{root}: {cell.partition} was run on other prompts; restore its data, or name another directory"
        )
    state = record.state
    if state == "complete" and len(stored_lengths(root, cell.partition) or []) != checked.prompts:
        state = "waiting"
    manifest.records[cell.partition] = dataclasses.replace(record, state=state, prompts=checked.hashed)
