"""Scoring speed on given texts: jaxtrace, plain and traced, against transformers, plain and traced.

    python -m benchmarks.score --shape 15m --texts 4 --length 512 --out results/score.md

Plain variants compute only the log-probability of every token. All variants load the same checkpoint, score the same
texts, and are called in turn in one process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import jaxtrace as jt
from benchmarks.agreement import agreement_line, metrics_of
from benchmarks.machine import product_rate, this_machine
from benchmarks.options import NO_LENS, add_dtype, add_model, add_variants, benchmark_parser, load_both, selected
from benchmarks.shapes import flops_per_text, random_tokens
from benchmarks.table import BenchmarkTable, ratio
from benchmarks.timing import CallTimes, interleave

PLAIN = jt.Probes.of("output", alphas=())
VARIANTS = {
    "jaxtrace": "jaxtrace, plain (log-probabilities)",
    "jaxtrace-no-lens": "jaxtrace, traced but for the lens",
    "jaxtrace-traced": "jaxtrace, traced",
    "transformers": "transformers, plain (sdpa, log-probabilities)",
    "transformers-traced": "transformers, traced (eager, output_attentions)",
}
TRACED = ("jaxtrace-traced", "transformers-traced")  # variants that compute every lens
COLUMNS = ("texts", "variant", "tokens/s", "s", "spread", "GFLOP/s", "of product", "vs plain tf", "vs traced tf")


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    add_model(parser)
    add_variants(parser, VARIANTS)
    add_dtype(parser)
    parser.add_argument("--texts", type=int, nargs="+", default=[4], help="texts scored at once")
    parser.add_argument("--length", type=int, default=512, help="tokens of each text")
    args = parser.parse_args()
    machine = this_machine()
    ours, theirs = load_both(args)
    peak = product_rate(args.dtype)
    rows: list[list[str]] = []
    below: list[str] = []

    def table() -> BenchmarkTable:
        return BenchmarkTable(
            title=f"Score, {args.shape}, {args.dtype}: texts of {args.length} tokens, {args.repeats} repeats",
            columns=COLUMNS,
            rows=rows,
            above=(f"{machine.line} Product of {args.dtype}: {peak / 1e9:.0f} GFLOP/s.",),
            below=(
                "Times are medians of whole calls, with conversion to NumPy. GFLOP/s counts the matrix products that "
                "the variant's numbers need (attention causally, the unembedding once per lens).",
                *below,
            ),
        )

    for number in args.texts:
        texts = random_tokens(args.shape, number, args.length)
        timed = interleave(selected(_calls(ours, theirs, texts), args), args.repeats)
        rows += [_row(name, timed, number, args, peak) for name in timed]
        below += _agreement(timed)
        table().write(args.out)  # a run that is stopped leaves its finished rows
    table().publish(args.out)


def _calls(ours: Any, theirs: Any, texts: list[list[int]]) -> dict[str, Callable[[], Any]]:
    calls: dict[str, Callable[[], Any]] = {
        "jaxtrace": lambda: ours.score(texts, probes=PLAIN, batch_size=len(texts)),
        "jaxtrace-no-lens": lambda: ours.score(texts, probes=jt.Probes.of(*NO_LENS), batch_size=len(texts)),
        "jaxtrace-traced": lambda: ours.score(texts, probes=jt.Probes.all(), batch_size=len(texts)),
    }
    if theirs is None:
        return calls
    from benchmarks import torch_plain, torch_traced

    return calls | {
        "transformers": lambda: torch_plain.score(theirs, texts),
        "transformers-traced": lambda: torch_traced.score(theirs, texts),
    }


def _row(name: str, timed: dict[str, CallTimes], number: int, args: argparse.Namespace, peak: float) -> list[str]:
    seconds = timed[name].median
    plain, traced = (timed[n].median if n in timed else None for n in ("transformers", "transformers-traced"))
    rate = number * flops_per_text(args.shape, args.length, lens=name in TRACED) / seconds
    return [
        str(number),
        VARIANTS[name],
        f"{number * args.length / seconds:.0f}",
        f"{seconds:.2f}",
        f"{timed[name].spread:.0%}",
        f"{rate / 1e9:.0f}",
        f"{rate / peak:.0%}",
        ratio(plain, seconds),
        ratio(traced, seconds),
    ]


def _agreement(timed: dict[str, CallTimes]) -> list[str]:
    lines = []
    if timed.keys() >= set(TRACED):
        ours, theirs = (timed[name].result for name in TRACED)
        lines.append(agreement_line(metrics_of(ours), theirs))
    if timed.keys() >= {"jaxtrace", "transformers"}:
        ours, theirs = metrics_of(timed["jaxtrace"].result)["logprob"][:, :-1], timed["transformers"].result
        lines.append(f"Plain log-probabilities: largest absolute difference {np.abs(ours - theirs).max():.0e}.")
    return lines


if __name__ == "__main__":
    main()
