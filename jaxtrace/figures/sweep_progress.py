"""A running sweep on the terminal."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from jaxtrace.figures.tables.parts import plain
from jaxtrace.sweeping.cells import Cell
from jaxtrace.sweeping.manifest import CellRecord
from jaxtrace.sweeping.running import Watch

LATEST = 8  # cells in the live table


class SweepProgress(Watch):
    """A line for each cell that ends and, if errors go to a terminal, a live table of the latest cells."""

    def __init__(self, console: Console, errors: Console, cells: int) -> None:
        """Prepare to follow a sweep.

        Args:
          console: receives the lines if there is no live table.
          errors: receives the live table, and the lines above it.
        """
        self._total, self._ended, self._checked = cells, 0, 0
        self._lines: list[tuple[str, str, str, str]] = []
        self._live = Live(console=errors, get_renderable=self._table, refresh_per_second=2, transient=True)
        self._is_live = errors.is_terminal and not console.quiet
        self._console = errors if self._is_live else console

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Print a line."""
        self._console.print(plain(line), markup=False, highlight=False, soft_wrap=True)

    def checking(self, cell: Cell) -> None:
        self._checked += 1

    def began(self, cell: Cell, total: int, done: int) -> None:
        self._cell, self._prompts, self._done = cell, total, done
        self._tokens, self._began = 0, time.monotonic()
        self._lines.append(self._line(cell, "running", "", "compiling"))

    def headline(self, line: str) -> None:
        if self._is_live:  # a log has one line for each cell
            self.say(line)

    def progress(self, prompts: int, tokens: int, entropy: float) -> None:
        self._done += prompts
        self._tokens += tokens
        rate = f"{self._tokens / max(time.monotonic() - self._began, 1e-3):.0f}"
        self._lines[-1] = self._line(self._cell, "running", f"{self._done}/{self._prompts}", rate)

    def ended(self, cell: Cell, record: CellRecord) -> None:
        self._ended += 1
        rate = "" if record.tokens_per_second is None else f"{record.tokens_per_second:.0f}"
        outcome = record.error or f"{record.rows} prompts, {record.tokens} tokens, {rate or 0} tokens/s"
        self.say(f"{cell.partition}: {record.state}, {outcome}")
        line = self._line(cell, record.state, str(record.rows), rate)
        self._lines = [*(earlier for earlier in self._lines if earlier[0] != line[0]), line][-LATEST:]

    @staticmethod
    def _line(cell: Cell, state: str, prompts: str, rate: str) -> tuple[str, str, str, str]:
        return f"{cell.model_name} on {cell.task}, {cell.run}", state, prompts, rate

    def _table(self) -> Table:
        stage = f"{self._ended} done" if self._lines else f"{self._checked} checked"
        table = Table(box=None, title=f"{self._total} cells, {stage}", title_justify="left")
        for header in ("cell", "state", "prompts", "tokens/s"):
            table.add_column(header)
        for line in self._lines[-LATEST:]:
            table.add_row(*map(plain, line))
        return table
