"""A study's result on disk: tables as CSV, pictures as PNG, and one page with both."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from rich.table import Table as TerminalTable

from jaxtrace.errors import visible
from jaxtrace.figures.html import png, template
from jaxtrace.figures.tables.parts import plain
from jaxtrace.figures.theme import DARK, LIGHT, Theme
from jaxtrace.files import atomic_file, write_atomically
from jaxtrace.statistics.intervals import FEW_NOTE
from jaxtrace.studies._shared.csv import write_csv
from jaxtrace.studies._shared.result import Picture, Result, Table
from jaxtrace.studies._shared.settings import PAGE

MAX_ROWS = 40  # rows of a table in the page and in the terminal; its CSV file has all


def write_study(result: Result, directory: str | Path) -> Path:
    """Write tables/NAME.csv, NAME.png and study.html, a self-contained page, and return the page's path.

    Args:
      directory: folder, created if missing; files of the same names are replaced.
    """
    directory = Path(directory)
    (directory / "tables").mkdir(parents=True, exist_ok=True)
    for name, table in result.tables.items():
        with atomic_file(directory / "tables" / f"{name}.csv") as file:
            write_csv(table.frame, file)
    pictures = []
    for name, picture in result.pictures.items():
        light, dark = (png(_drawn(picture, theme)) for theme in (LIGHT, DARK))
        write_atomically(directory / f"{name}.png", light)
        in_base64 = {"light": base64.b64encode(light).decode(), "dark": base64.b64encode(dark).decode()}
        pictures.append({"caption": _with_note(picture.text, picture.few), **in_base64})
    html = template("study.html.jinja").render(
        result=result,
        pictures=pictures,
        tables={
            name: (_with_note(table.text, table.few), _html(table.frame), len(table.frame))
            for name, table in result.tables.items()
        },
        shown=MAX_ROWS,
        policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    )
    page = directory / PAGE
    write_atomically(page, html.encode(errors="replace"))
    return page


def terminal_table(name: str, table: Table) -> TerminalTable:
    """Return a study's table for the terminal."""
    frame = _with_intervals(table.frame.head(MAX_ROWS))
    shown = TerminalTable(title=plain(name), title_justify="left", title_style="bold", caption_justify="left")
    for column in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(table.frame[column])
        shown.add_column(plain(column), justify="right" if numeric else "left")
    for row in frame.itertuples(index=False):
        shown.add_row(*(plain(_cell_text(value)) for value in row))
    more = f"and {len(table.frame) - MAX_ROWS} more rows" if len(table.frame) > MAX_ROWS else ""
    shown.caption = "\n".join(filter(None, (more, FEW_NOTE if table.few else ""))) or None
    return shown


def _with_note(text: str, few: bool) -> str:
    return f"{text} {FEW_NOTE}" if few else text


def _drawn(picture: Picture, theme: Theme) -> Figure:
    """Return a picture, with a line below it if it is over few units."""
    figure = picture.draw(theme)
    if picture.few:
        figure.supxlabel(FEW_NOTE, x=0.01, ha="left", fontsize=7, color=theme.ink, wrap=True)
    return figure


def _html(frame: pd.DataFrame) -> Markup:
    frame = _with_intervals(frame.head(MAX_ROWS))
    html = frame.to_html(index=False, border=0, formatters=[_cell_text] * frame.shape[1], na_rep="–", escape=True)
    return Markup(html)  # pandas has escaped the cells


def _with_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """Merge columns x, x_low and x_high into one: value [low, high], and * if x_few is true."""
    merged = frame.copy()
    for name in [name for name in frame.columns if {f"{name}_low", f"{name}_high"} <= {*frame.columns}]:
        ends = [f"{name}_low", f"{name}_high"]
        cells = frame[[name, *ends]].itertuples(index=False)
        few = frame.get(f"{name}_few", np.zeros(len(frame)))
        merged[name] = [
            f"{_cell_text(x)} [{_cell_text(low)}, {_cell_text(high)}]{'*' if mark == 1 else ''}"
            for (x, low, high), mark in zip(cells, few, strict=True)
        ]
        merged = merged.drop(columns=[*ends, f"{name}_few"], errors="ignore")
    return merged


def _cell_text(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.4g}"
    return visible(value)
