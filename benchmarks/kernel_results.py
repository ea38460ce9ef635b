"""Results of the kernels' benchmark: as rows of a table, compared with an earlier run, and as scalars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

KEYS = ("op", "implementation", "shape", "dtype")
TIME = "ms"
RATES = ("spread %", "bytes", "GB/s", "% of bandwidth", "FLOPs", "GFLOP/s", "% of product")
RATIOS = ("× no moments", "× unfused", "× xla")
NUMBERS = (TIME, *RATES, *RATIOS)
DIFFERENCE = "Δ xla"
VERSUS_EARLIER = "× earlier"

Row = dict[str, Any]  # values by column: KEYS, and NUMBERS, or the reason of a refusal as "note"


class EarlierRun(NamedTuple):
    """Times of an earlier run: its CSV file, the line about its machine, and the milliseconds of each key."""

    path: Path
    machine: str
    times: dict[tuple[str, ...], float]

    @classmethod
    def read(cls, path: Path) -> EarlierRun:
        """Read a CSV file that `--out` wrote.

        Raises:
          OSError: the file cannot be read.
          ValueError: the file is not a table of this benchmark.
        """
        comments = [line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("#")]
        rows = pd.read_csv(path, comment="#")
        if not {*KEYS, TIME} <= {*rows}:
            raise ValueError(
                f"{path}: is not a CSV table of python -m benchmarks.kernels; give a file that its --out wrote"
            )
        times: Any = rows.dropna(subset=[TIME]).set_index(list(KEYS))[TIME].to_dict()
        return cls(path, next((line for line in comments if line.startswith("Machine: ")), ""), times)

    def compare(self, rows: Sequence[Row]) -> list[str]:
        """Add ratios of times to rows; return lines that name the earlier run and the rows without a counterpart."""
        timed = {tuple(row[name] for name in KEYS): row for row in rows if TIME in row}
        for key in timed.keys() & self.times.keys():
            timed[key][VERSUS_EARLIER] = timed[key][TIME] / self.times[key]
        return [
            f"Earlier: {self.path.name}. {self.machine}",
            f"Rows of this run only: {_listed(key for key in timed if key not in self.times)}.",
            f"Rows of the earlier run only: {_listed(key for key in self.times if key not in timed)}.",
        ]


def _listed(keys: Iterable[tuple[str, ...]]) -> str:
    return "; ".join(" ".join(key) for key in keys) or "none"


def cell(value: Any) -> str:
    """Return a plain number, or text, of a table's cell."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_scalars(rows: Sequence[Row], machine: str, folder: Path) -> None:
    """Write tensorboardX scalars named op/number/implementation/dtype/shape, and the machine as text."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        writer.add_text("machine", machine)
        for row in rows:
            for name in filter(row.__contains__, NUMBERS):
                tag = f"{row['op']}/{name}/{row['implementation']}/{row['dtype']}/{row['shape']}"
                writer.add_scalar(_tag(tag), row[name], 0)


def _tag(text: str) -> str:
    for symbol, name in (("%", "percent"), ("×", "times"), (",", ""), ("=", ""), (" ", "_"), ("GB/s", "GB_per_s")):
        text = text.replace(symbol, name)
    return text
