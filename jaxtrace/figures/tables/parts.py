"""Parts that the terminal's tables share: plain tables and numbers with units."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from jaxtrace.models.config import DecoderConfig


def named_values(rows: Mapping[str, str]) -> Table:
    """Return a table of names and values, without a header."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def stacked_table(first: str, *headers: str) -> Table:
    """Return an empty table in 80 columns whose cells hold several lines; all but the first column are numbers."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column(first, overflow="fold")
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    return table


def special_layers(config: DecoderConfig) -> str:
    """Return the number of layers that attend to images, or to a window of the text; "" if there are none."""
    windows = [kind.window for kind in config.kinds if kind.window is not None]
    if image_layers := sum(kind.cross_attention for kind in config.kinds):
        return f"{image_layers} of them look at images"
    if windows:
        number = "all" if len(windows) == len(config.kinds) else str(len(windows))
        return f"{number} of them see {windows[0]:,} tokens"
    return ""
