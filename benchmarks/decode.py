"""Decoding speed: jaxtrace, plain and traced, against transformers, plain and traced.

    python -m benchmarks.decode --shape 15m --batch 1 16 --out results/decode.md

All variants load the same checkpoint, continue the same prompts greedily, and are called in turn in one process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxtrace as jt
from benchmarks.agreement import agreement_line, metrics_of, token_agreement
from benchmarks.machine import this_machine
from benchmarks.options import (
    NO_LENS,
    add_batch,
    add_dtype,
    add_model,
    add_variants,
    benchmark_parser,
    load_both,
    selected,
)
from benchmarks.shapes import SHAPES, decoder_config, parameter_bytes, random_tokens
from benchmarks.table import BenchmarkTable, ratio
from benchmarks.timing import CallTimes, interleave

VARIANTS = {
    "jaxtrace": "jaxtrace, plain",
    "jaxtrace-no-lens": "jaxtrace, traced but for the lens",
    "jaxtrace-traced": "jaxtrace, traced",
    "transformers-generate": "transformers, plain (sdpa), its generate",
    "transformers-loop": "transformers, plain (sdpa), loop by hand",
    "transformers-traced": "transformers, traced (eager, output_attentions)",
}
COLUMNS = ("variant", "tokens/s", "ms/step", "spread", "GB/s", "of triad", "vs plain tf", "vs traced tf")


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    add_model(parser)
    add_variants(parser, VARIANTS)
    add_batch(parser)
    add_dtype(parser)
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens generated for each")
    experts = ("eager", "batched_mm", "grouped_mm")
    parser.add_argument("--experts", choices=experts, default="batched_mm", help="how transformers computes experts")
    args = parser.parse_args()
    machine = this_machine()
    ours, theirs = load_both(args)
    routed = decoder_config(args.shape).experts is not None
    if routed and theirs is not None:
        theirs.set_experts_implementation(args.experts)
    rows: list[list[str]] = []
    below: list[str] = []
    sizes = f"prompt {args.prompt}, {args.new} new tokens"

    def table() -> BenchmarkTable:
        return BenchmarkTable(
            title=f"Decode, {args.shape}, {args.dtype}: {sizes}, {args.repeats} repeats",
            columns=("batch", *COLUMNS),
            rows=rows,
            above=(machine.line,),
            below=(
                "Times are medians of whole calls, with prefill and conversion to NumPy. GB/s counts the weights (of "
                "experts those in use, on average) and the key/value cache, each read once per step. “vs” columns are "
                "ratios of tokens/s; plain tf is the faster of the two plain variants of transformers.",
                *([f"transformers computes experts with {args.experts}."] if routed else []),
                *below,
            ),
        )

    for batch in args.batch:
        prompts = random_tokens(args.shape, batch, args.prompt)
        timed = interleave(selected(_calls(ours, theirs, prompts, args.new), args), args.repeats)
        cache = _cache_bytes(args.shape, batch, args.prompt + args.new / 2, args.dtype)
        moved = parameter_bytes(args.shape, batch, args.dtype) + cache
        rows += _rows(timed, batch, args.new, moved, machine.bandwidth)
        below += _agreement(timed, batch)
        table().write(args.out)  # a run that is stopped leaves its finished batches
    table().publish(args.out)


def _calls(ours: Any, theirs: Any, prompts: list[list[int]], new: int) -> dict[str, Callable[[], Any]]:
    def traced(probes: jt.Probes) -> jt.Trace:
        return ours.generate(prompts, max_new_tokens=new, probes=probes, stop_tokens=(), batch_size=len(prompts))

    calls: dict[str, Callable[[], Any]] = {
        "jaxtrace": lambda: traced(jt.Probes.none()),
        "jaxtrace-no-lens": lambda: traced(jt.Probes.of(*NO_LENS)),
        "jaxtrace-traced": lambda: traced(jt.Probes.all()),
    }
    if theirs is None:
        return calls
    from benchmarks import torch_plain, torch_traced

    return calls | {
        "transformers-generate": lambda: torch_plain.generate(theirs, prompts, new),
        "transformers-loop": lambda: torch_plain.generate_loop(theirs, prompts, new),
        "transformers-traced": lambda: torch_traced.generate(theirs, prompts, new),
    }


def _cache_bytes(shape: str, batch: int, positions: float, dtype: str) -> float:
    config = SHAPES[shape]
    entries = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]
    return batch * positions * entries * jnp.dtype(dtype).itemsize


def _rows(timed: dict[str, CallTimes], batch: int, new: int, moved: float, bandwidth: float) -> list[list[str]]:
    speed = {name: batch * new / t.median for name, t in timed.items()}
    plain = max((speed[name] for name in ("transformers-generate", "transformers-loop") if name in speed), default=None)
    return [
        [
            str(batch),
            VARIANTS[name],
            f"{speed[name]:.1f}",
            f"{t.median / new * 1e3:.2f}",
            f"{t.spread:.0%}",
            f"{moved * new / t.median / 1e9:.1f}",
            f"{moved * new / t.median / bandwidth:.0%}",
            ratio(speed[name], plain),
            ratio(speed[name], speed.get("transformers-traced")),
        ]
        for name, t in timed.items()
    ]


def _agreement(timed: dict[str, CallTimes], batch: int) -> list[str]:
    lines = []
    if timed.keys() >= {"jaxtrace-traced", "transformers-traced"}:
        ours = metrics_of(timed["jaxtrace-traced"].result)
        lines.append(f"Batch {batch}. {agreement_line(ours, timed['transformers-traced'].result)}")
    tokens = {name: _tokens(t.result) for name, t in timed.items()}
    first = next(iter(tokens))
    others = ", ".join(f"{name} {token_agreement(tokens[first], x)}" for name, x in tokens.items() if name != first)
    if others:
        lines.append(f"Batch {batch}. Tokens equal to the tokens of {first}: {others}.")
    return lines


def _tokens(result: Any) -> np.ndarray:
    if isinstance(result, jt.Trace):
        return metrics_of(result)["token"]
    return result["token"] if isinstance(result, dict) else result


if __name__ == "__main__":
    main()
