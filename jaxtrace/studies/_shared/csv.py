"""CSV files that a spreadsheet opens without computing anything."""

from __future__ import annotations

import csv
import re
from typing import IO, Any

import pandas as pd

# Beginnings of a cell that spreadsheets read as a formula, after white space, and in full width too.
FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠]")


def write_csv(frame: pd.DataFrame, file: IO[bytes], *, header: bool = True) -> None:
    """Write a table as CSV, with an apostrophe before each text that a spreadsheet would take for a formula.

    Numbers stay as they are, negative ones too. Parquet files hold texts unchanged.
    """
    safe, quoting = frame.copy(), csv.QUOTE_MINIMAL
    for name in frame.select_dtypes(exclude="number"):
        safe[name] = frame[name].map(_as_text)
        if safe[name].map(lambda value: "\r" in str(value)).any():
            quoting = csv.QUOTE_NONNUMERIC  # pandas leaves a carriage return unquoted, which would begin a row
    safe.rename(columns=_as_text).to_csv(file, index=False, header=header, quoting=quoting)


def _as_text(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value
