"""Results of the kernels' benchmark: as rows of a table, beside those of an earlier run, and as scalars."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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

Key = tuple[str, ...]  # a value for each of KEYS


@dataclass(frozen=True)
class Result:
    """One implementation on one shape.

    Attributes:
      key: its values for KEYS.
      numbers: those of NUMBERS that it has; none if it refused.
      note: why it refused, or nothing.
    """

    key: Key
    numbers: dict[str, float]
    note: str = ""


@dataclass(frozen=True)
class Earlier:
    """Times of an earlier run.

    Attributes:
      path: its CSV file.
      machine: its line about the machine.
      times: milliseconds.
    """

    path: Path
    machine: str
    times: dict[Key, float]

    @classmethod
    def read(cls, path: Path) -> Earlier:
        """Reads what `--out` wrote.

        Raises:
          OSError: there is no such file.
          ValueError: it is no table of this benchmark.
        """
        lines = path.read_text().splitlines()
        comments = [line.removeprefix("# ") for line in lines if line.startswith("#")]
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        if not {*KEYS, TIME} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path} is no CSV table of python -m benchmarks.kernels")
        times = {tuple(row[name] for name in KEYS): float(row[TIME]) for row in rows if row[TIME]}
        return cls(path, next((line for line in comments if line.startswith("Machine: ")), ""), times)

    def lines(self, results: Sequence[Result]) -> list[str]:
        """What was compared with, and which rows have no counterpart."""
        timed = [result.key for result in results if result.numbers]
        only_here = [key for key in timed if key not in self.times]
        only_there = [key for key in self.times if key not in timed]
        return [
            f"Earlier: {self.path.name}. {self.machine}",
            f"Without a counterpart there: {_listed(only_here)}.",
            f"There alone: {_listed(only_there)}.",
        ]


def _listed(keys: Sequence[Key]) -> str:
    return "; ".join(" ".join(key) for key in keys) or "none"


def columns(earlier: Earlier | None) -> tuple[str, ...]:
    """Names of the table's columns."""
    return (*KEYS, *NUMBERS, *([VERSUS_EARLIER] if earlier else []), "note")


def cells(result: Result, earlier: Earlier | None) -> list[str]:
    """A row of the table: plain numbers, and nothing where there is none."""
    numbers = dict(result.numbers)
    if earlier and result.numbers and result.key in earlier.times:
        numbers[VERSUS_EARLIER] = numbers[TIME] / earlier.times[result.key]
    names = columns(earlier)[len(KEYS) : -1]
    return [*result.key, *(_number(numbers[name]) if name in numbers else "" for name in names), result.note]


def _number(x: float) -> str:
    return str(x) if isinstance(x, int) else f"{x:.4g}"


def write_scalars(results: Sequence[Result], machine: str, folder: Path) -> None:
    """Writes tensorboardX scalars named op/number/implementation/dtype/shape, and the machine as text."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        writer.add_text("machine", machine)
        for result in results:
            op, implementation, shape, dtype = result.key
            for name, value in result.numbers.items():
                tag = f"{op}/{name}/{implementation}/{dtype}/{shape}"
                writer.add_scalar(_tag(tag), value, 0)


def _tag(text: str) -> str:
    for written, spelt in (("%", "percent"), ("×", "times"), (",", ""), ("=", ""), (" ", "_"), ("GB/s", "GB_per_s")):
        text = text.replace(written, spelt)
    return text
