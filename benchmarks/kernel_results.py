"""Results of the kernels' benchmark: as rows of a table, compared with an earlier run, and as scalars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

KEYS = ("op", "implementation", "shape", "dtype")
TIME = "ms"
NUMBERS = (
    TIME,
    "spread %",
    "bytes",
    "GB/s",
    "% of bandwidth",
    "FLOPs",
    "GFLOP/s",
    "% of product",
    "× no moments",
    "× unfused",
)
VERSUS_EARLIER = "× earlier"

Key = tuple[str, ...]  # one value per name in KEYS


@dataclass(frozen=True)
class KernelResult:
    """Result of one implementation on one shape.

    Attributes:
      key: values for KEYS.
      numbers: values for NUMBERS, by name; empty if the implementation refused.
      note: reason of a refusal, or empty.
    """

    key: Key
    numbers: dict[str, float]
    note: str = ""


@dataclass(frozen=True)
class EarlierRun:
    """Times of an earlier run.

    Attributes:
      times: milliseconds of each key.
    """

    path: Path
    machine: str
    times: dict[Key, float]

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
        times = rows.dropna(subset=[TIME]).set_index(list(KEYS))[TIME].to_dict()
        return cls(path, next((line for line in comments if line.startswith("Machine: ")), ""), times)

    def lines(self, results: Sequence[KernelResult]) -> list[str]:
        """Return lines that name the earlier run and the rows without a counterpart."""
        timed = [result.key for result in results if result.numbers]
        only_here = [key for key in timed if key not in self.times]
        only_earlier = [key for key in self.times if key not in timed]
        return [
            f"Earlier: {self.path.name}. {self.machine}",
            f"Rows of this run only: {_listed(only_here)}.",
            f"Rows of the earlier run only: {_listed(only_earlier)}.",
        ]


def _listed(keys: Sequence[Key]) -> str:
    return "; ".join(" ".join(key) for key in keys) or "none"


def columns(earlier: EarlierRun | None) -> tuple[str, ...]:
    """Return the names of the table's columns."""
    return (*KEYS, *NUMBERS, *([VERSUS_EARLIER] if earlier else []), "note")


def cells(result: KernelResult, earlier: EarlierRun | None) -> list[str]:
    """Return a row of the table: plain numbers, and empty cells for missing ones."""
    numbers = dict(result.numbers)
    if earlier and result.numbers and result.key in earlier.times:
        numbers[VERSUS_EARLIER] = numbers[TIME] / earlier.times[result.key]
    names = columns(earlier)[len(KEYS) : -1]
    return [*result.key, *(_number(numbers[name]) if name in numbers else "" for name in names), result.note]


def _number(x: float) -> str:
    return str(x) if isinstance(x, int) else f"{x:.4g}"


def write_scalars(results: Sequence[KernelResult], machine: str, folder: Path) -> None:
    """Write tensorboardX scalars named op/number/implementation/dtype/shape, and the machine as text."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        writer.add_text("machine", machine)
        for result in results:
            op, implementation, shape, dtype = result.key
            for name, value in result.numbers.items():
                tag = f"{op}/{name}/{implementation}/{dtype}/{shape}"
                writer.add_scalar(_tag(tag), value, 0)


def _tag(text: str) -> str:
    for symbol, name in (("%", "percent"), ("×", "times"), (",", ""), ("=", ""), (" ", "_"), ("GB/s", "GB_per_s")):
        text = text.replace(symbol, name)
    return text
