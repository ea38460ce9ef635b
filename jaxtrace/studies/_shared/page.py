"""A study's result on the disk: tables as CSV, pictures as PNG, and one page with both."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from rich.markup import escape
from rich.table import Table as Printed

from jaxtrace.figures.html import png, template
from jaxtrace.figures.theme import DARK, LIGHT
from jaxtrace.studies._shared.result import Result, Table

SHOWN = 40  # rows of a table in the page and in the terminal; its file has all


def write_study(result: Result, directory: str | Path) -> Path:
    """Writes tables/NAME.csv, NAME.png and study.html, a page that needs nothing beside it.

    Args:
      result: what to write; its text is escaped.
      directory: made if need be; files of the same names are replaced.

    Returns:
      The page.
    """
    directory = Path(directory)
    (directory / "tables").mkdir(parents=True, exist_ok=True)
    for name, table in result.tables.items():
        table.frame.to_csv(directory / "tables" / f"{name}.csv", index=False)
    pictures = []
    for name, picture in result.pictures.items():
        light, dark = (png(picture.draw(theme)) for theme in (LIGHT, DARK))
        (directory / f"{name}.png").write_bytes(light)
        in_base64 = {"light": base64.b64encode(light).decode(), "dark": base64.b64encode(dark).decode()}
        pictures.append({"caption": picture.text, **in_base64})
    page = directory / "study.html"
    page.write_text(
        template("study.html.jinja").render(
            result=result,
            pictures=pictures,
            tables={name: (table.text, _html(table.frame), len(table.frame)) for name, table in result.tables.items()},
            shown=SHOWN,
            policy="default-src 'none'; img-src data:; style-src 'unsafe-inline'",
        ),
        encoding="utf-8",
        errors="replace",
    )
    return page


def printed(name: str, table: Table) -> Printed:
    """A study's table for the terminal."""
    frame = _with_intervals(table.frame.head(SHOWN))
    shown = Printed(title=name, title_justify="left", title_style="bold", caption_justify="left")
    for column in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(table.frame[column])
        shown.add_column(escape(str(column)), justify="right" if numeric else "left")
    for row in frame.itertuples(index=False):
        shown.add_row(*(escape(_words(value)) for value in row))
    if len(table.frame) > SHOWN:
        shown.caption = f"and {len(table.frame) - SHOWN} rows more"
    return shown


def _html(frame: pd.DataFrame) -> Markup:
    frame = _with_intervals(frame.head(SHOWN))
    shown = frame.to_html(index=False, border=0, formatters=[_words] * frame.shape[1], na_rep="–", escape=True)
    return Markup(shown)  # pandas has escaped the cells


def _with_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with columns x, x_low and x_high as one: value [low, high]."""
    shown = frame.copy()
    for name in [name for name in frame.columns if {f"{name}_low", f"{name}_high"} <= {*frame.columns}]:
        ends = [f"{name}_low", f"{name}_high"]
        cells = frame[[name, *ends]].itertuples(index=False)
        shown[name] = [f"{_words(x)} [{_words(low)}, {_words(high)}]" for x, low, high in cells]
        shown = shown.drop(columns=ends)
    return shown


def _words(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.4g}"
    return str(value)
