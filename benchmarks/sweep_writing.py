"""Share of a sweep's time that writing its traces takes.

    python -m benchmarks.sweep_writing --shape 15m

One cell warms up; the cells of other seeds after it are measured: their time from the first prompt to the last part on
disk, and the part of that time in which the store writes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import yaml

from benchmarks.machine import this_machine
from benchmarks.options import add_batch, add_model, benchmark_parser
from benchmarks.shapes import checkpoint, random_tokens
from benchmarks.table import BenchmarkTable
from benchmarks.timing import say
from jaxtrace.sweeping import Cell, Watch, open_sweep, read_sweep
from jaxtrace.sweeping.manifest import CellRecord
from jaxtrace.traces import TraceWriter, open_trace


class WritingClock(Watch):
    """Seconds of each cell, and seconds of writing in it."""

    def __init__(self) -> None:
        self.cells: list[tuple[float, float]] = []

    def began(self, cell: Cell, total: int, done: int) -> None:
        self._began, self._writing = time.perf_counter(), 0.0

    def ended(self, cell: Cell, record: CellRecord) -> None:
        self.cells.append((time.perf_counter() - self._began, self._writing))
        say(f"{record.state}: {self.cells[-1][0]:.2f} s, writing {self.cells[-1][1]:.3f} s")

    def timed(self, write: Callable[..., None]) -> Callable[..., None]:
        """Return a writer's `write` that adds up its time."""

        def timed(writer: TraceWriter, rows: Any) -> None:
            began = time.perf_counter()
            write(writer, rows)
            self._writing += time.perf_counter() - began

        return timed


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    add_model(parser)
    parser.add_argument("--prompts", type=int, default=64, help="prompts of a cell")
    parser.add_argument("--length", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens generated for each")
    add_batch(parser)
    parser.add_argument("--repeats", type=int, default=3, help="cells measured")
    args = parser.parse_args()
    rows = [row for batch in args.batch for row in _rows(args, batch)]
    BenchmarkTable(
        title=f"Writing in a sweep, {args.shape}: cells of {args.prompts} prompts of {args.length} tokens, "
        f"{args.new} new tokens each, all probes",
        columns=("batch", "cell, s", "tokens/s", "writing, s", "share", "MB on disk"),
        rows=rows,
        above=(this_machine().line,),
        below=("Writing: the store lays rows out as tables, writes Parquet with zstd, and syncs each file to disk.",),
    ).publish(args.out)


def _rows(args: argparse.Namespace, batch: int) -> list[list[str]]:
    clock = WritingClock()
    with tempfile.TemporaryDirectory(dir=args.workdir) as folder:
        texts, file, root = (Path(folder) / name for name in ("prompts.jsonl", "sweep.yaml", "out"))
        prompts = random_tokens(args.shape, args.prompts, args.length)
        texts.write_text("".join(json.dumps({"tokens": tokens}) + "\n" for tokens in prompts))
        settings = {"prompts": str(texts), "max_new_tokens": args.new, "batch_size": batch}
        models, seeds = str(checkpoint(args.shape, args.workdir)), list(range(args.repeats + 1))
        fields = {"models": models, "samplers": "sample", "seeds": seeds, "settings": settings}
        file.write_text(yaml.safe_dump(fields))
        with patch.object(TraceWriter, "write", clock.timed(TraceWriter.write)):
            open_sweep(read_sweep(file), root, clock).run(clock)
        size = sum(run.size for run in open_trace(root).runs) / len(seeds) / 1e6
    tokens = args.prompts * args.new
    return [
        [str(batch), f"{cell:.2f}", f"{tokens / cell:.0f}", f"{writing:.3f}", f"{writing / cell:.1%}", f"{size:.1f}"]
        for cell, writing in clock.cells[1:]
    ]


if __name__ == "__main__":
    main()
