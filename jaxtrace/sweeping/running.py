"""Run the cells of a sweep, one after another, into one dataset."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtrace.checkpoints.huggingface import Checkpoint, default_dtype
from jaxtrace.checkpoints.random import RandomCheckpoint
from jaxtrace.compilation import counted
from jaxtrace.errors import StoreError, first_line
from jaxtrace.model import Model
from jaxtrace.parallel.automatic import resolve_mesh
from jaxtrace.parallel.processes import barrier, broadcast_from_leader, process_number, raise_together
from jaxtrace.run import NumberedRows, Run, encode_prompts, open_config_model, start
from jaxtrace.settings.run import RunConfig
from jaxtrace.sweeping.cells import Cell
from jaxtrace.sweeping.check import CheckedCell, check, model_key
from jaxtrace.sweeping.manifest import CellRecord, Manifest
from jaxtrace.traces.location import Location
from jaxtrace.traces.parts import TABLES, complete_parts, part_prompts
from jaxtrace.traces.run_json import read_run, run_path


class Watch:
    """Callbacks of a running sweep, which do nothing; a subclass overrides those it needs."""

    def checking(self, cell: Cell) -> None:
        """Called before each cell's check; nothing runs until all are checked."""

    def began(self, cell: Cell, total: int, done: int) -> None:
        """Called when a cell starts, with the numbers of its prompts and of those already done."""

    def headline(self, line: str) -> None:
        """Called with the line that says what the cell's run does."""

    def progress(self, prompts: int, tokens: int, entropy: float) -> None:
        """Called with the number of newly finished prompts and tokens, and the sum of the tokens' entropies."""

    def rows(self, rows: NumberedRows) -> None:
        """Called with rows of the cell once they are stored."""

    def ended(self, cell: Cell, record: CellRecord) -> None:
        """Called when a cell is complete or has failed."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that is ready to run: every cell checked, the dataset open."""

    root: Location
    cells: Sequence[Cell]
    manifest: Manifest

    def run(self, watch: Watch) -> None:
        """Run the incomplete cells; a failure is recorded with its error, and the next cell starts.

        Raises:
          StoreError: the disk is full or the dataset cannot be written; complete cells stay complete.
        """
        loaded: _LoadedModel | None = None
        incomplete = np.array([self.manifest.of(cell).state != "complete" for cell in self.cells])
        for cell in itertools.compress(self.cells, broadcast_from_leader(incomplete)):
            run: Run | None = None
            try:
                if loaded is None or loaded.key != model_key(cell.config):
                    loaded = None
                    gc.collect()
                    jax.clear_caches()  # each compiled program holds memory maps, of which Linux allows 65,530
                    loaded = raise_together(lambda config=cell.config: _load(config))
                run = self._start(cell, loaded)
                self._run(cell, run, watch)
            except Exception as error:  # whatever it is, the other cells may succeed
                cannot_write = isinstance(error, StoreError) and isinstance(error.__cause__, OSError)
                # Once a run has started, the other processes may be waiting inside it.
                if cannot_write or (run is not None and process_number() is not None):
                    raise
                self.manifest.update(cell, state="failed", error=f"{type(error).__name__}: {first_line(error)}")
            watch.ended(cell, self.manifest.of(cell))

    def _start(self, cell: Cell, loaded: _LoadedModel) -> Run:
        self.manifest.update(cell, state="running", error=None)
        encoded = raise_together(lambda: encode_prompts(cell.config, loaded.checkpoint, self.manifest.date))
        root, partition = str(self.root), cell.partition
        return start(cell.config, loaded.checkpoint, loaded.model, encoded, root, resume=True, partition=partition)

    def _run(self, cell: Cell, run: Run, watch: Watch) -> None:
        watch.began(cell, run.total, run.done)
        watch.headline(run.headline)
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


class _LoadedModel(NamedTuple):
    """Model that successive cells share."""

    key: tuple[Any, ...]
    checkpoint: Checkpoint | RandomCheckpoint
    model: Model


def _load(config: RunConfig) -> _LoadedModel:
    checkpoint = open_config_model(config)
    return _LoadedModel(
        model_key(config), checkpoint, Model.from_checkpoint(checkpoint, dtype=config.dtype, mesh=config.mesh)
    )


def open_sweep(cells: Sequence[Cell], root: str | Path, watch: Watch) -> Sweep:
    """Check every cell and open the dataset, so that mistakes show before anything runs.

    A complete cell runs again if one of its parts is missing or truncated.

    Args:
      root: directory or URL, created if missing; a sweep that is there is resumed.

    Raises:
      JaxtraceError: a model, a task's data or a prompt is unavailable; a mesh has more devices than there are or does
        not divide a model; the directory cannot be written, holds something else or another version's sweep, or holds
        one of these cells with other prompts.
    """
    place = Location.of(root)
    manifest = Manifest(place)
    checked = check(cells, offline=False, date=manifest.date, on_cell=watch.checking)
    for each in checked:
        if each.config is not None:
            dtype = np.dtype(each.cell.config.dtype or default_dtype())
            resolve_mesh(each.cell.config.mesh, each.config, dtype.itemsize)
        _confirm(place, manifest, each)
    manifest.write()
    barrier("the sweep is checked")
    return Sweep(place, cells, manifest)


def _confirm(root: Location, manifest: Manifest, checked: CheckedCell) -> None:
    """Compare a cell's record with its prompts and its stored parts."""
    cell, record = checked.cell, manifest.of(checked.cell)
    if record.prompts not in ("", checked.prompt_hash):
        raise StoreError(
            f"{root}: {cell.partition} was run on other prompts; restore its data, or name another directory"
        )
    state = record.state
    if state == "complete" and len(stored_lengths(root, cell.partition) or []) != checked.prompts:
        state = "waiting"
    manifest.records[cell.partition] = dataclasses.replace(record, state=state, prompts=checked.prompt_hash)


def stored_lengths(root: Location, partition: str) -> list[int] | None:
    """Return the number of steps of every stored prompt of a cell; None if one of its parts is missing or damaged.

    The data of tokens and layers are not read, so the cells of a large dataset are compared in seconds.
    """
    if not run_path(root, partition).exists():
        return None
    run = read_run(root, partition)
    tables = {table: root / table / partition for table in TABLES}
    names = complete_parts({table: folder.names() for table, folder in tables.items()})
    lengths: list[int] = []
    for name in names:
        if (prompts := part_prompts(tables, name, run["id"], whole=False)) is None:
            return None
        lengths += prompts.values()
    return lengths
