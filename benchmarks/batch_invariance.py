"""Batch invariance: how far a prompt's answer depends on the prompts beside it, and what a deterministic run costs.

    python -m benchmarks.batch_invariance --model demo --dtype float32 bfloat16

Greedy answers to each prompt alone and to all in one batch, with and without `deterministic`, and times of whole calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import jaxtrace as jt
from benchmarks.machine import this_machine
from benchmarks.options import benchmark_parser
from benchmarks.table import BenchmarkTable, ratio
from benchmarks.timing import interleave
from jaxtrace.run import load_prompts, run_config
from jaxtrace.traces.row import Row

COLUMNS = ("dtype", "run", "texts that differ", "largest entropy difference", "time, one prompt", "time, all prompts")


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--model", default="demo", help="name of a model, or directory of a checkpoint")
    parser.add_argument("--prompts", help="text file with a prompt on each line; the demo's own by default")
    parser.add_argument("--count", type=int, default=8, help="number of prompts, and rows of the batch")
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--new", type=int, default=64, help="tokens generated for each prompt")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each run")
    args = parser.parse_args()
    source = {"prompts": args.prompts} if args.prompts else {}
    prompts = load_prompts(run_config(limit=args.count, **source))
    rows = []
    for dtype in args.dtype:
        model = jt.load(args.model, dtype=dtype)

        def call(prompts: Sequence[jt.Prompt], deterministic: bool, model: jt.Model = model) -> list[Row]:
            options = {"deterministic": deterministic, "max_new_tokens": args.new}
            return list(model.generate(prompts, probes=jt.Probes.of("output"), batch_size=args.count, **options).rows)

        calls: dict[str, Callable[[], list[Row]]] = {}
        for name, deterministic in (("plain", False), ("deterministic", True)):
            calls[f"{name}, one"] = lambda flag=deterministic: call(prompts[:1], flag)
            calls[f"{name}, all"] = lambda flag=deterministic: call(prompts, flag)
        timed = interleave(calls, args.repeats)
        seconds = {name: times.fastest for name, times in timed.items()}
        for name, deterministic in (("plain", False), ("deterministic", True)):
            alone = [call([prompt], deterministic)[0] for prompt in prompts]
            together = timed[f"{name}, all"].result
            texts = sum(one.text != other.text for one, other in zip(alone, together, strict=True))
            shares = [ratio(seconds[f"{name}, {which}"], seconds[f"plain, {which}"]) for which in ("one", "all")]
            entropy = f"{largest_difference(alone, together):.1g}"
            rows.append([dtype, name, f"{texts} of {len(prompts)}", entropy, *shares])
    BenchmarkTable(
        title=f"Batch invariance, {Path(args.model).name}: {len(prompts)} prompts, {args.new} new tokens",
        columns=COLUMNS,
        rows=rows,
        above=(this_machine().line,),
        below=("Entropies in nats, up to the first token that differs. Times: fastest call, relative to plain.",),
    ).publish(args.out)


def largest_difference(ours: Sequence[Row], theirs: Sequence[Row]) -> float:
    """Return the largest difference of an output entropy, up to each row's first token that differs."""
    largest = 0.0
    for a, b in zip(ours, theirs, strict=True):
        steps = min(a.length, b.length)
        differs = np.flatnonzero(a.metrics["token"][:steps] != b.metrics["token"][:steps])
        steps = int(differs[0]) + 1 if len(differs) else steps
        gaps = np.abs(a.metrics["entropy"][:steps] - b.metrics["entropy"][:steps])
        largest = max(largest, float(gaps.max()))
    return largest


if __name__ == "__main__":
    main()
