"""Tables of results: Markdown on stdout, and Markdown or CSV in a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BenchmarkTable:
    """Rows under named columns.

    Attributes:
      title: measured quantity and setting.
      columns: names of the columns; the first column is aligned left, the others right.
      rows: cells as text.
      above: lines before the table: the machine, the setting.
      below: lines after the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    above: Sequence[str] = ()
    below: Sequence[str] = ()

    def markdown(self) -> str:
        """Return the table as Markdown."""
        line = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
        rule = "|---" + "|---:" * (len(self.columns) - 1) + "|"
        grid = "\n".join([line(self.columns), rule, *map(line, self.rows)])
        parts = [f"### {self.title}", *self.above, grid, *self.below]
        return "\n\n".join(parts) + "\n"

    def csv(self) -> str:
        """Return the rows as CSV, with every other line as a comment."""
        text = io.StringIO()
        text.writelines(f"# {line}\n" for line in (self.title, *self.above, *self.below))
        csv.writer(text, lineterminator="\n").writerows([self.columns, *self.rows])
        return text.getvalue()

    def publish(self, out: Path | None) -> None:
        """Print the Markdown, and write `out`."""
        print(self.markdown())
        self.write(out)

    def write(self, out: Path | None) -> None:
        """Write `out` if there is one: as CSV if its name ends in .csv, else as Markdown."""
        if out is not None:
            write(self.csv() if out.suffix == ".csv" else self.markdown(), out)


def publish(markdown: str, out: Path | None) -> None:
    """Print Markdown, and write it to `out`."""
    print(markdown)
    if out is not None:
        write(markdown, out)


def write(text: str, out: Path) -> None:
    """Write text to a file, whose directory is created if needed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")


def ratio(a: float | None, b: float | None) -> str:
    """Return a / b with two decimals, or a dash if either is missing."""
    return f"{a / b:.2f}×" if a and b else "–"
