"""What a study gives back: tables, pictures, and what limits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from jaxtrace.figures.theme import Theme


@dataclass(frozen=True)
class Table:
    """A table and what it says.

    Attributes:
      frame: a row per line. An estimate named x has its interval in x_low and x_high, and n in a column of its own.
      text: what the rows are, in a sentence or two; units are in the names of columns or here.
    """

    frame: pd.DataFrame
    text: str


@dataclass(frozen=True)
class Picture:
    """A figure and what it shows.

    Attributes:
      draw: theme → figure; called once for each theme.
      text: what is seen, axes and bands included.
    """

    draw: Callable[[Theme], Figure]
    text: str


@dataclass(frozen=True)
class Result:
    """The outcome of a study.

    Attributes:
      study: its name.
      question: what was asked, in a line.
      tables, pictures: by a name that serves as that of a file.
      notes: what a reader must know to take the numbers for what they are.
      files: other files that the study wrote.
    """

    study: str
    question: str
    tables: Mapping[str, Table]
    pictures: Mapping[str, Picture]
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
