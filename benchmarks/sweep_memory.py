"""Memory of a sweep over many short prompts: resident memory of the process while prompts are processed.

    python -m benchmarks.sweep_memory --prompts 1000 10000

Each number of prompts is swept in a new process.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import yaml

from benchmarks.machine import description
from benchmarks.memory import MIB
from benchmarks.options import benchmark_parser
from benchmarks.table import BenchmarkTable
from benchmarks.timing import run_in_new_process, say
from jaxtrace.observing.memory import peak_resident_bytes, resident_bytes
from jaxtrace.run import NumberedRows
from jaxtrace.sweeping import Cell, Watch, open_sweep, read_sweep

SAMPLES = 10  # of the memory in a sweep


class MemoryWatch(Watch):
    """Resident memory of a sweep, recorded every `every` prompts."""

    def __init__(self, every: int) -> None:
        self._every, self._done = every, 0
        self.held: list[tuple[str, int]] = []

    def began(self, cell: Cell, total: int, done: int) -> None:
        self.held = [("model loaded, prompts encoded", resident_bytes())]

    def rows(self, rows: NumberedRows) -> None:
        before, self._done = self._done // self._every, self._done + len(rows)
        if self._done // self._every > before:
            self.held.append((f"{self._done} prompts done", resident_bytes()))
            say(f"{self._done} prompts: {self.held[-1][1] / MIB:.0f} MiB")


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--prompts", type=int, nargs="+", default=[1000, 10_000], help="number of prompts of each sweep"
    )
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(_sweep(args.one)))
        return
    rows = []
    for count in args.prompts:
        memory = run_in_new_process("benchmarks.sweep_memory", "--one", str(count))
        rows += [[f"{count}", when, f"{held / MIB:.0f}"] for when, held in memory["held"]]
        rows.append([f"{count}", "peak", f"{memory['peak'] / MIB:.0f}"])
    BenchmarkTable(
        title="Memory of a sweep: the demo model, prompts of 4 to 12 tokens, 4 new tokens each, all probes",
        columns=("prompts of the sweep", "when", "resident MiB"),
        rows=rows,
        above=(f"Machine: {description()}.",),
        below=("Resident memory is the process's; the peak is over its whole life (getrusage).",),
    ).publish(args.out)


def _sweep(prompts: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        texts, file = Path(folder) / "prompts.jsonl", Path(folder) / "sweep.yaml"
        ids = (rng.integers(3, 400, size=rng.integers(4, 13)).tolist() for _ in range(prompts))
        texts.write_text("".join(json.dumps({"tokens": tokens}) + "\n" for tokens in ids))
        settings = {"prompts": str(texts), "max_new_tokens": 4}
        file.write_text(yaml.safe_dump({"models": "demo", "settings": settings}))
        watch = MemoryWatch(max(1, prompts // SAMPLES))
        open_sweep(read_sweep(file), Path(folder) / "out", watch).run(watch)
    return {"held": watch.held, "peak": peak_resident_bytes()}


if __name__ == "__main__":
    main()
