"""Command-line options that the benchmarks share."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.shapes import SHAPES


def add_common(parser: argparse.ArgumentParser, variants: Mapping[str, str] | None = None, shape: str = "15m") -> None:
    """Adds --shape, --workdir and --out; with variants, --variants and --repeats too."""
    temporary = Path(tempfile.gettempdir())
    parser.add_argument("--shape", choices=list(SHAPES), default=shape, help="of the model")
    parser.add_argument("--workdir", type=Path, default=temporary, help="where random checkpoints are kept")
    parser.add_argument("--out", type=Path, help="also write the table here: .md, or .csv")
    if variants is not None:
        parser.add_argument("--variants", nargs="+", choices=list(variants), default=list(variants))
        parser.add_argument("--repeats", type=int, default=5, help="timed calls of each variant")
