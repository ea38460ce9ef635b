"""Memory of a sweep over many short prompts: what the process holds, as prompts go by.

    python -m benchmarks.sweep_memory --prompts 1000 10000

Each number of prompts is swept in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

from benchmarks.machine import description
from benchmarks.memory import MIB, peak_rss, rss
from benchmarks.table import Table
from benchmarks.timing import say
from jaxtrace.run import Numbered
from jaxtrace.sweeping import Cell, Watch, open_sweep, read_sweep

LOOKS = 10  # at the memory, in a sweep


class Look(Watch):
    """Looks at the memory every so many prompts."""

    def __init__(self, every: int):
        self._every, self._done = every, 0
        self.held: list[tuple[str, int]] = []

    def began(self, cell: Cell, total: int, done: int) -> None:
        self.held = [("model loaded, prompts encoded", rss())]

    def rows(self, rows: Numbered) -> None:
        before, self._done = self._done // self._every, self._done + len(rows)
        if self._done // self._every > before:
            self.held.append((f"{self._done} prompts done", rss()))
            say(f"{self._done} prompts: {self.held[-1][1] / MIB:.0f} MiB")


def main() -> None:
    """Runs the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[1000, 10_000], help="how many, one sweep each")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="also write the table here: .md, or .csv")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(_sweep(args.one)))
        return
    rows = []
    for count in args.prompts:
        command = [sys.executable, "-m", "benchmarks.sweep_memory", "--one", str(count)]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
        rows += [[f"{count}", when, f"{held / MIB:.0f}"] for when, held in told["held"]]
        rows.append([f"{count}", "peak", f"{told['peak'] / MIB:.0f}"])
    Table(
        title="Memory of a sweep: the demo model, prompts of 4 to 12 tokens, 4 new tokens each, all probes",
        columns=("prompts of the sweep", "when", "resident MiB"),
        rows=rows,
        above=(f"Machine: {description()}.",),
        below=("Resident memory is the process's; the peak is that of its whole life (getrusage).",),
    ).publish(args.out)


def _sweep(prompts: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        texts, file = Path(folder) / "prompts.jsonl", Path(folder) / "sweep.yaml"
        ids = (rng.integers(3, 400, size=rng.integers(4, 13)).tolist() for _ in range(prompts))
        texts.write_text("".join(json.dumps({"tokens": tokens}) + "\n" for tokens in ids))
        settings = {"prompts": str(texts), "max_new_tokens": 4}
        file.write_text(yaml.safe_dump({"models": "demo", "settings": settings}))
        look = Look(max(1, prompts // LOOKS))
        open_sweep(read_sweep(file), Path(folder) / "out", look).run(look)
    return {"held": look.held, "peak": peak_rss()}


if __name__ == "__main__":
    main()
