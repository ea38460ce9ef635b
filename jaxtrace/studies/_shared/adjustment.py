"""The one rule for p-values of several tests: Benjamini and Hochberg's adjustment (1995), beside the raw values."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from jaxtrace.studies._shared.result import Table


def adjusted_table(frame: pd.DataFrame, text: str, *family: str) -> Table:
    """Return a table in which each column of p-values (p, p_NAME, NAME_p) is followed by its adjusted one, …_adjusted.

    Args:
      text: see `Table`; a sentence on the adjustment is added.
      family: columns whose values a family of tests has in common; none makes the whole table a family.
    """
    frame = frame.reset_index(drop=True)
    tested = [str(name) for name in frame.columns if re.fullmatch(r"(.+_)?p|p_.+", str(name))]
    for name in tested:
        keys = [frame[key] for key in family] or np.zeros(len(frame))
        adjusted = frame[name].groupby(keys, sort=False).transform(_adjusted)
        frame.insert(list(frame).index(name) + 1, f"{name}_adjusted", adjusted)
    if not tested:
        return Table(frame, text)
    lines = f"the lines of each {' and '.join(family)}" if family else "the table's lines"
    names = ", ".join(f"{name}_adjusted" for name in tested)
    return Table(frame, f"{text} {names}: over {lines}, after Benjamini and Hochberg.")


def _adjusted(p: pd.Series) -> pd.Series:
    """Return the adjusted values; NaN stays NaN and is no test."""
    known = p.dropna()
    return pd.Series(false_discovery_control(known), known.index).reindex(p.index)
