"""A study's result on disk: tables as CSV, pictures as PNG, and one page with both."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from rich.console import Console, Group, RenderableType
from rich.table import Table as TerminalTable
from rich.text import Text

from jaxtrace.errors import visible
from jaxtrace.figures.html import png, template
from jaxtrace.figures.tables.parts import plain
from jaxtrace.figures.theme import DARK, LIGHT, Theme
from jaxtrace.files import atomic_file, write_atomically
from jaxtrace.statistics.intervals import FEW_NOTE
from jaxtrace.studies._shared.csv import write_csv
from jaxtrace.studies._shared.result import Picture, Result, Table
from jaxtrace.studies._shared.settings import PAGE

NUMBER = re.compile(r"[-–+.,e\d%*inf]+( \[.*\]\*?)?|nan")  # a cell of a number, with its interval
TEXT_WIDTHS = (30, 20, 12, 6)  # widest cell of text, in the order tried
MOST_NAMES = 5  # columns that name a row
WIDE = Console(width=10_000, file=io.StringIO())


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
            name: (_with_note(table.text, table.few), _html(table), len(table.frame), table.preview)
            for name, table in result.tables.items()
        },
        policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    )
    page = directory / PAGE
    write_atomically(page, html.encode(errors="replace"))
    return page


def terminal_table(name: str, table: Table, width: int = 80) -> RenderableType:
    """Return a study's table in the columns of a terminal; numbers are never cut.

    Columns of one value for all rows become a line. A table that is too wide is turned, if it has few rows, or else
    split into parts that repeat the columns that name a row.

    Args:
      width: number of the terminal's columns.
    """
    frame = _with_intervals(table.frame.head(table.preview), _short_text)
    columns: list[str] = [*frame.columns]
    same = [] if len(frame) < 2 else [name for name in columns if table.frame[name].map(str).nunique() == 1]
    names = [name for name in _row_names(table.frame, frame) if name not in same]
    values = [name for name in columns if name not in {*same, *names}] or same
    same = [name for name in same if name not in values]
    for text_width in TEXT_WIDTHS:
        parts = _laid_out(frame, names, values, width, text_width)
        if max(map(_width, parts)) <= width:
            break
    title = f"{name}: " if same else name
    title += ", ".join(f"{column} {_short_text(frame[column].iloc[0])}" for column in same)
    more = len(table.frame) - len(frame)
    caption = [plain(f"and {more} more rows in tables/{name}.csv")] if more else []
    caption += [FEW_NOTE] if table.few else []
    return Group("", Text(visible(title), "bold"), *parts, *caption)


def _row_names(frame: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    """Return the columns that name a row: those before the first one with fractions or an interval."""
    columns = [*map(str, shown.columns)]
    first = next(
        (i for i, name in enumerate(columns) if f"{name}_low" in frame or pd.api.types.is_float_dtype(frame[name])), 0
    )
    return columns[: min(first, MOST_NAMES)]


def _laid_out(
    frame: pd.DataFrame, names: list[str], values: list[str], width: int, text_width: int
) -> list[TerminalTable]:
    """Return a frame as one table, turned, or in parts that each have the columns that name its rows."""

    def part(*columns: str) -> TerminalTable:
        return _terminal(frame[[*names, *columns]], text_width)

    if _width(part(*values)) <= width:
        return [part(*values)]
    lines = frame[[*names, *values]]
    rows = {str(i): [_short_text(value) for value in row] for i, row in enumerate(lines.itertuples(index=False))}
    turned = _terminal(pd.DataFrame({"": [*map(str, lines.columns)], **rows}), text_width, show_header=False)
    if _width(turned) <= width:
        return [turned]
    parts, chosen = [], []
    for value in values:
        if chosen and _width(part(*chosen, value)) > width:
            parts.append(part(*chosen))
            chosen = []
        chosen.append(value)
    return [*parts, part(*chosen)]


def _terminal(frame: pd.DataFrame, text_width: int, *, show_header: bool = True) -> TerminalTable:
    """Return a table whose texts are folded and whose numbers are not."""
    shown = TerminalTable(box=None, pad_edge=False, padding=(0, 1), show_header=show_header)
    columns = []
    for name in frame:
        cells = [_short_text(value) for value in frame[name]]
        numeric = [bool(NUMBER.fullmatch(cell)) for cell in cells]
        cells = [x if is_number else _folded(x, text_width) for x, is_number in zip(cells, numeric, strict=True)]
        size = max(len(line) for text in (*cells, *str(name).split("_")) for line in text.splitlines() or [""])
        header = _folded(str(name), min(size + 1, text_width))
        shown.add_column(plain(header), justify="right" if all(numeric) else "left", no_wrap=True)
        columns.append(cells)
    for row in zip(*columns, strict=True):
        shown.add_row(*map(plain, row))
    return shown


def _width(shown: TerminalTable) -> int:
    return WIDE.measure(shown).maximum


def _folded(text: str, width: int) -> str:
    """Return a text in lines of at most some characters, broken behind spaces and underscores where possible."""
    lines = [""]
    for word in re.findall(r"[^_\s]*[_\s]|[^_\s]+", text):
        if lines[-1] and len(lines[-1]) + len(word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return "\n".join(line.rstrip() for line in lines)


def _short_text(value: Any) -> str:
    """Return a cell of the terminal: three digits of a fraction, and whole numbers as they are."""
    if isinstance(value, float | np.floating) and np.isfinite(value):
        value = float(value)
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.3g}"
    return _cell_text(value)


def _with_note(text: str, few: bool) -> str:
    return f"{text} {FEW_NOTE}" if few else text


def _drawn(picture: Picture, theme: Theme) -> Figure:
    """Return a picture, with a line below it if it is over few units."""
    figure = picture.draw(theme)
    if picture.few:
        figure.supxlabel(FEW_NOTE, x=0.01, ha="left", fontsize=7, color=theme.ink, wrap=True)
    return figure


def _html(table: Table) -> Markup:
    frame = _with_intervals(table.frame.head(table.preview), _cell_text)
    html = frame.to_html(index=False, border=0, formatters=[_cell_text] * frame.shape[1], na_rep="–", escape=True)
    return Markup(html)  # pandas has escaped the cells


def _with_intervals(frame: pd.DataFrame, text: Callable[[Any], str]) -> pd.DataFrame:
    """Merge columns x, x_low and x_high into one: value [low, high], as `text` writes them, and * if x_few is true."""
    merged = frame.copy()
    for name in [name for name in frame.columns if {f"{name}_low", f"{name}_high"} <= {*frame.columns}]:
        ends = [f"{name}_low", f"{name}_high"]
        cells = frame[[name, *ends]].itertuples(index=False)
        few = frame.get(f"{name}_few", np.zeros(len(frame)))
        merged[name] = [
            f"{text(x)} [{text(low)}, {text(high)}]{'*' if mark == 1 else ''}"
            for (x, low, high), mark in zip(cells, few, strict=True)
        ]
        merged = merged.drop(columns=[*ends, f"{name}_few"], errors="ignore")
    return merged


def _cell_text(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.4g}"
    return visible(value)
