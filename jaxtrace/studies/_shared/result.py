"""Result of a study: tables, pictures, and notes on their limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from jaxtrace.figures.theme import Theme

MAX_ROWS = 40  # rows that the terminal and the page show of a table
EXAMPLES = 5  # rows that show a table of single items, such as answers


@dataclass(frozen=True)
class Table:
    """A table and its explanation.

    Attributes:
      frame: data frame. An estimate named x has its interval in x_low and x_high, and its n in a column named n; x_few
        marks an interval over few units. A p-value has its adjusted value beside it (`adjustment.adjusted_table`).
      text: meaning of the rows in a sentence or two, with units that are not in the columns' names.
      preview: number of rows in the terminal and in the page; the CSV file has all.
    """

    frame: pd.DataFrame
    text: str
    preview: int = MAX_ROWS

    @property
    def few(self) -> bool:
        """True if some interval is over fewer than `FEW` units."""
        return bool((self.frame.filter(regex="_few$") == True).any(axis=None))  # noqa: E712 (a cell may be missing)


@dataclass(frozen=True)
class Picture:
    """A figure and its caption.

    Attributes:
      draw: function from a theme to the figure; called once per theme.
      text: caption, which explains axes and bands.
      few: True if it shows intervals or bands over fewer than `FEW` units; the picture and its caption then say so.
    """

    draw: Callable[[Theme], Figure]
    text: str
    few: bool = False


@dataclass(frozen=True)
class Result:
    """Outcome of a study.

    Attributes:
      tables, pictures: tables and pictures by name; the names are also file names.
      notes: caveats for the reader of the numbers.
      files: other files that the study wrote.
    """

    study: str
    question: str
    tables: Mapping[str, Table]
    pictures: Mapping[str, Picture]
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
