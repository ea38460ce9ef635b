"""Tables of results: Markdown on stdout, and Markdown or CSV in a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Attributes:
      title: what was measured.
      columns: their names; the values of the first are set left, the others right.
      rows: of text.
      above: lines before the table: the machine, the setting.
      below: lines after it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    above: Sequence[str] = ()
    below: Sequence[str] = ()

    def markdown(self) -> str:
        """The table as Markdown."""
        line = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
        rule = "|---" + "|---:" * (len(self.columns) - 1) + "|"
        grid = "\n".join([line(self.columns), rule, *map(line, self.rows)])
        parts = [f"### {self.title}", *self.above, grid, *self.below]
        return "\n\n".join(parts) + "\n"

    def csv(self) -> str:
        """The rows as CSV, every other line a comment."""
        text = io.StringIO()
        text.writelines(f"# {line}\n" for line in (self.title, *self.above, *self.below))
        csv.writer(text, lineterminator="\n").writerows([self.columns, *self.rows])
        return text.getvalue()

    def publish(self, out: Path | None) -> None:
        """Prints the Markdown, and writes `out`: CSV if it is named so, else Markdown."""
        print(self.markdown())
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(self.csv() if out.suffix == ".csv" else self.markdown())


def ratio(a: float | None, b: float | None) -> str:
    """a / b with two decimals, or a dash."""
    return f"{a / b:.2f}×" if a and b else "–"
