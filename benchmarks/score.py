"""Scoring speed on given texts: jaxtrace plain and traced, against transformers plain and traced.

    python -m benchmarks.score --shape 15m --texts 4 --length 512 --out results/score.md

Plain is what scoring means: the log-probability of every token. All variants load the same checkpoint, score the same
texts, and are called in turn in one process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import jaxtrace as jt
from benchmarks import torch_plain, torch_traced
from benchmarks.agreement import agreement_line, metrics_of
from benchmarks.machine import this_machine
from benchmarks.options import add_common
from benchmarks.shapes import checkpoint, flops_per_text, random_tokens
from benchmarks.table import Table, ratio
from benchmarks.timing import Timed, interleave

PLAIN = jt.Probes.of("output", alphas=())
NO_LENS = jt.Probes.of("output", "attention", "dispersion", "hidden")
VARIANTS = {
    "jaxtrace": "jaxtrace, plain (log-probabilities)",
    "jaxtrace-no-lens": "jaxtrace, traced but for the lens",
    "jaxtrace-traced": "jaxtrace, traced",
    "transformers": "transformers, plain (sdpa, log-probabilities)",
    "transformers-traced": "transformers, traced (eager, output_attentions)",
}
TRACED = ("jaxtrace-traced", "transformers-traced")  # the ones that compute every lens
COLUMNS = ("variant", "tokens/s", "s", "spread", "GFLOP/s", "of product", "vs plain tf", "vs traced tf")


def main() -> None:
    """Runs the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_common(parser, VARIANTS)
    parser.add_argument("--texts", type=int, default=4, help="texts scored at once")
    parser.add_argument("--length", type=int, default=512, help="tokens of each")
    args = parser.parse_args()
    machine = this_machine()
    directory = checkpoint(args.shape, args.workdir)
    ours = jt.load(str(directory)) if any(name.startswith("jax") for name in args.variants) else None
    theirs = torch_plain.load(directory) if any(name.startswith("tr") for name in args.variants) else None
    texts = random_tokens(args.shape, args.texts, args.length)
    calls = _calls(ours, theirs, texts)
    timed = interleave({name: calls[name] for name in args.variants}, args.repeats)
    Table(
        title=f"Score, {args.shape}: {args.texts} texts of {args.length} tokens, {args.repeats} repeats",
        columns=COLUMNS,
        rows=[_row(name, timed, args, machine.flops) for name in timed],
        above=(machine.line,),
        below=(
            "Times are medians of whole calls, conversion to NumPy included. GFLOP/s counts the matrix products that "
            "the variant's numbers need (attention causally, the unembedding once per lens).",
            *_agreement(timed),
        ),
    ).publish(args.out)


def _calls(ours: Any, theirs: Any, texts: list[list[int]]) -> dict[str, Callable[[], Any]]:
    return {
        "jaxtrace": lambda: ours.score(texts, probes=PLAIN, batch_size=len(texts)),
        "jaxtrace-no-lens": lambda: ours.score(texts, probes=NO_LENS, batch_size=len(texts)),
        "jaxtrace-traced": lambda: ours.score(texts, probes=jt.Probes.all(), batch_size=len(texts)),
        "transformers": lambda: torch_plain.score(theirs, texts),
        "transformers-traced": lambda: torch_traced.score(theirs, texts),
    }


def _row(name: str, timed: dict[str, Timed], args: argparse.Namespace, peak: float) -> list[str]:
    seconds = timed[name].median
    plain, traced = (timed[n].median if n in timed else None for n in ("transformers", "transformers-traced"))
    rate = args.texts * flops_per_text(args.shape, args.length, lens=name in TRACED) / seconds
    return [
        VARIANTS[name],
        f"{args.texts * args.length / seconds:.0f}",
        f"{seconds:.2f}",
        f"{timed[name].spread:.0%}",
        f"{rate / 1e9:.0f}",
        f"{rate / peak:.0%}",
        ratio(plain, seconds),
        ratio(traced, seconds),
    ]


def _agreement(timed: dict[str, Timed]) -> list[str]:
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
