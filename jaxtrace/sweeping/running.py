"""Run the cells of a sweep, one after another, into one dataset."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxtrace import interrupts
from jaxtrace.checkpoints.huggingface import Checkpoint, default_dtype
from jaxtrace.checkpoints.random import RandomCheckpoint
from jaxtrace.compilation import counted
from jaxtrace.errors import StoreError, first_line
from jaxtrace.files import LOCK
from jaxtrace.lock import WriteLock
from jaxtrace.model import Model
from jaxtrace.parallel.automatic import resolve_mesh
from jaxtrace.parallel.processes import barrier, broadcast_from_leader, process_number, raise_together
from jaxtrace.run import NumberedRows, Run, encode_prompts, lock_together, open_config_model, start
from jaxtrace.settings.run import RunConfig
from jaxtrace.sweeping.cells import Cell
from jaxtrace.sweeping.check import CheckedCell, check, model_key
from jaxtrace.sweeping.manifest import CellRecord, Manifest
from jaxtrace.traces.location import Location
from jaxtrace.traces.parts import TABLES, count_problem, read_lengths
from jaxtrace.traces.run_json import RUNS, read_run, run_path


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
    """A sweep that is ready to run: every cell checked, the dataset open and locked until the end of its run."""

    root: Location
    cells: Sequence[Cell]
    manifest: Manifest
    lock: WriteLock | None

    def run(self, watch: Watch) -> None:
        """Run the incomplete cells; a failure is recorded with its error, and the next cell starts.

        Raises:
          StoreError: the disk is full, the dataset cannot be written, or it was deleted or unlocked; complete cells
            stay complete.
        """
        with self.lock or nullcontext():
            self._run_cells(watch)

    def _run_cells(self, watch: Watch) -> None:
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
                interrupts.check()  # an interrupt inside a callback of C++ may arrive as another error
                cannot_write = isinstance(error, StoreError) and isinstance(error.__cause__, OSError)
                # Once a run has started, the other processes may be waiting inside it.
                if cannot_write or (run is not None and process_number() is not None):
                    raise
                self.manifest.update(cell, state="failed", error=f"{type(error).__name__}: {first_line(error)}")
            watch.ended(cell, self.manifest.of(cell))

    def _start(self, cell: Cell, loaded: _LoadedModel) -> Run:
        if self.lock is not None:
            self.lock.check()
        self.manifest.update(cell, state="running", error=None)
        encoded = raise_together(lambda: encode_prompts(cell.config, loaded.checkpoint, self.manifest.date))
        place: dict[str, Any] = {"partition": cell.partition, "lock": self.lock}
        return start(cell.config, loaded.checkpoint, loaded.model, encoded, str(self.root), resume=True, **place)

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
        lengths = run.lengths
        self.manifest.update(cell, state="complete", rows=len(lengths), tokens=sum(lengths.values()), **changes)


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

    A complete cell runs again if one of its parts is missing or truncated, or a prompt is stored twice.

    Args:
      root: directory or URL, created if missing; a sweep that is there is resumed.

    Raises:
      JaxtraceError: a model, a task's data or a prompt is unavailable; a mesh has more devices than there are or does
        not divide a model; the directory cannot be written, is being written by another program, holds something else
        or another version's sweep, or holds one of these cells with other prompts.
    """
    place = Location.of(root)
    with ExitStack() as stack:
        lock = lock_together(root)
        if lock is not None:
            stack.enter_context(lock)
            for file in (place / RUNS).files():
                if file.endswith(f"/{LOCK}"):
                    run = (place / RUNS / file).parent
                    lock.refuse_other(run.path, f"contains {run}")
        manifest = Manifest(place)
        checked = check(cells, offline=False, date=manifest.date, on_cell=watch.checking)
        for each in checked:
            if each.config is not None:
                dtype = np.dtype(each.cell.config.dtype or default_dtype())
                resolve_mesh(each.cell.config.mesh, each.config, dtype.itemsize)
            _confirm(place, manifest, each)
        manifest.write()
        barrier("the sweep is checked")
        stack.pop_all()
    return Sweep(place, cells, manifest, lock)


def _confirm(root: Location, manifest: Manifest, checked: CheckedCell) -> None:
    """Compare a cell's record with its prompts and its stored parts."""
    cell, record = checked.cell, manifest.of(checked.cell)
    if record.prompts not in ("", checked.prompt_hash):
        raise StoreError(
            f"{root}: {cell.partition} was run on other prompts; restore its data, or name another directory"
        )
    state = record.state
    if state == "complete" and not _is_stored(root, cell.partition, checked.prompts or 0):
        state = "waiting"
    manifest.records[cell.partition] = dataclasses.replace(record, state=state, prompts=checked.prompt_hash)


def _is_stored(root: Location, partition: str, prompts: int) -> bool:
    """Return True if each prompt of a cell is stored once, and no part is damaged; most data are not read."""
    if not run_path(root, partition).exists():
        return False
    tables = {table: root / table / partition for table in TABLES}
    parts = read_lengths(tables, read_run(root, partition)["id"], whole=False).values()
    stored = [pair for lengths in parts for pair in lengths or ()]
    return None not in parts and count_problem(stored, range(prompts)) is None
