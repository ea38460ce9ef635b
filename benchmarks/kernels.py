"""Speed of the kernels, against the same product or attention without moments, and against unfused XLA.

    python -m benchmarks.kernels --op softmax_moments --impl xla --shape R=1,V=32000 R=96,V=32000 --out softmax.csv

A shape is a list of axis=size; the default is realistic shapes. The axes depend on the operation:
softmax_moments R,V (rows, vocabulary); unembed_moments G,R,D,V (groups of rows, rows of each, width, vocabulary);
decode_attention B,S,N,K,H (rows, slots, query heads, key/value heads, head width); prefill_attention and
head_dispersion B,T,S,N,K,H, with T queries at the last of the S slots.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from benchmarks.kernel_results import (
    DIFFERENCE,
    KEYS,
    NUMBERS,
    TIME,
    VERSUS_EARLIER,
    EarlierRun,
    Row,
    cell,
    write_scalars,
)
from benchmarks.kernel_shapes import AxisSizes, default_shapes, flops, parse_shape, shape_text
from benchmarks.kernel_variants import NO_MOMENTS, OPERATIONS, UNFUSED, Variant, reason, usual_implementations, variants
from benchmarks.machine import product_rate, this_machine
from benchmarks.table import BenchmarkTable
from benchmarks.timing import CallTimes, interleave, say

CALL_SECONDS = 0.1  # approximate time of one timed call, which repeats its work
BELOW = (
    "ms: median time of one run of many, enqueued one after another and waited for together, the variants in turn. "
    "Bytes: arguments and result, each counted once. FLOPs: matrix products; attention counts visible keys only. "
    "× columns are ratios of times: to the fastest no-moments row, the unfused one, and xla, of the same shape. "
    "Δ xla: largest absolute difference of the results from xla's. "
    "More than 100 % of the bandwidth means that data stays in a cache."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with a one-line message and status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark of the command line."""
    args, shapes, earlier = _parse(arguments)
    machine = this_machine()
    cases = [(op, shape, dtype) for op in args.op for shape in shapes[op] for dtype in args.dtype]
    rows: list[Row] = []
    columns = (*KEYS, *NUMBERS, DIFFERENCE, *([VERSUS_EARLIER] if earlier else []), "note")
    above = [machine.line, f"An empty run takes {_empty_run() * 1e6:.0f} µs."]
    if "bfloat16" in args.dtype:
        above.append(f"bfloat16 matrix product {product_rate('bfloat16') / 1e9:.0f} GFLOP/s.")

    def table() -> BenchmarkTable:
        compared = earlier.compare(rows) if earlier else []
        return BenchmarkTable(
            title=f"Kernels on {jax.default_backend()}, {args.repeats} repeats",
            columns=columns,
            rows=[[cell(row.get(name, "")) for name in columns] for row in rows],
            above=above,
            below=(BELOW, *compared),
        )

    for case in cases:
        rows += _measure(*case, args)
        table().write(args.out)  # a run that is stopped leaves its finished cases
    table().publish(args.out)
    if args.tensorboard:
        write_scalars(rows, machine.line, args.tensorboard)


def _parse(arguments: list[str] | None) -> tuple[argparse.Namespace, dict[str, list[AxisSizes]], EarlierRun | None]:
    parser = _Parser(prog="python -m benchmarks.kernels", description=(__doc__ or "").splitlines()[0])
    names = list(dict.fromkeys(name for op in OPERATIONS.values() for name in op.implementations))
    parser.add_argument("--op", nargs="+", choices=list(OPERATIONS), default=list(OPERATIONS))
    parser.add_argument("--impl", nargs="+", choices=names, help="default: the ones for this platform")
    parser.add_argument("--against", nargs="*", choices=[NO_MOMENTS, UNFUSED], default=[NO_MOMENTS, UNFUSED])
    parser.add_argument(
        "--shape", nargs="+", help="for example R=6,V=32000; in most shells R={1,6},V=32000 gives two shapes"
    )
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each row")
    parser.add_argument("--out", type=Path, help="also write the table here: .md, or .csv")
    parser.add_argument(
        "--tensorboard", type=Path, metavar="DIR", help="also write tensorboardX scalars to this folder"
    )
    parser.add_argument("--compare", type=Path, metavar="FILE.csv", help="add ratios to an earlier run's --out")
    args = parser.parse_args(arguments)
    if args.repeats < 1:
        parser.error(f"--repeats: {args.repeats} is too small; give 1 or more")
    if args.out and args.out.suffix not in (".md", ".csv"):
        parser.error(f"--out: {args.out} has an unknown ending; name it .md or .csv")
    if args.tensorboard and find_spec("tensorboardX") is None:
        parser.error("--tensorboard: tensorboardX is not installed; run pip install tensorboardX")
    try:
        requested = {op: [parse_shape(text, op) for text in args.shape or ()] for op in args.op}
        earlier = EarlierRun.read(args.compare) if args.compare else None
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"--compare: {args.compare} cannot be read ({error.strerror}); give a file that --out wrote")
    return args, {op: requested[op] or default_shapes(op) for op in args.op}, earlier


def _measure(op: str, shape: AxisSizes, dtype: str, args: argparse.Namespace) -> list[Row]:
    """Return the refusals, then the results of the other implementations and baselines, timed in turn."""
    say(f"{op} {shape_text(shape)} {dtype}")
    key = {"op": op, "shape": shape_text(shape), "dtype": dtype}
    with jax.default_matmul_precision("highest" if dtype == "float32" else "default"):
        timed_variants, refused = variants(op, shape, dtype, args.impl or usual_implementations(op), args.against)
        calls = {}
        for name, variant in timed_variants.items():
            try:
                calls[name] = repeated(variant)
            except Exception as error:  # a compiler or a device that refuses one variant leaves the others
                refused[name] = reason(error)
        timed = interleave({name: call for name, (call, _) in calls.items()}, args.repeats, pause=0)
    seconds = {name: t.median / calls[name][1] for name, t in timed.items()}
    no_moments = min((x for name, x in seconds.items() if name.startswith(NO_MOMENTS)), default=None)
    products = flops(op, shape)
    rows: list[Row] = [{**key, "implementation": name, "note": reason} for name, reason in refused.items()]
    for name in timed:
        numbers = _numbers(timed[name], seconds[name], timed_variants[name].moved, products, dtype)
        references = {"× no moments": no_moments, "× unfused": seconds.get(UNFUSED), "× xla": seconds.get("xla")}
        numbers |= {column: seconds[name] / x for column, x in references.items() if x is not None}
        if "xla" in timed and name in OPERATIONS[op].implementations:
            numbers[DIFFERENCE] = _difference(timed[name].result, timed["xla"].result)
        rows.append({**key, "implementation": name, **numbers})
    return rows


def _numbers(timed: CallTimes, seconds: float, moved: int, products: int, dtype: str) -> dict[str, float]:
    numbers = {
        TIME: seconds * 1e3,
        "spread %": timed.spread * 100,
        "bytes": moved,
        "GB/s": moved / seconds / 1e9,
        "% of bandwidth": moved / seconds / this_machine().bandwidth * 100,
    }
    if products:
        rate = products / seconds
        numbers |= {"FLOPs": products, "GFLOP/s": rate / 1e9, "% of product": rate / product_rate(dtype) * 100}
    return numbers


def _difference(ours: Any, theirs: Any) -> float:
    """Return the largest absolute difference of two results; indices of tokens are not compared."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    floats = [(x.astype(jnp.float32), y.astype(jnp.float32)) for x, y in pairs if jnp.issubdtype(x.dtype, jnp.floating)]
    return max(float(jnp.max(jnp.abs(x - y), initial=0)) for x, y in floats)


def repeated(variant: Variant) -> tuple[Callable[[], Any], int]:
    """Return a call that repeats the variant for about CALL_SECONDS, and the number of its repetitions.

    Each run takes an array of the previous run without using it, so that no run begins before the previous one ends.
    """
    step = jax.jit(lambda previous, arguments: variant.function(*arguments), keep_unused=True)
    first = jax.tree.leaves(variant.result)[0]
    start = jnp.zeros(first.shape, first.dtype)

    def call(times: int) -> Any:
        previous = start
        for _ in range(times):
            result = step(previous, variant.arguments)
            previous = jax.tree.leaves(result)[0]
        return jax.block_until_ready(result)

    call(1)
    began = time.perf_counter()
    call(1)
    times = math.ceil(CALL_SECONDS / (time.perf_counter() - began))
    return lambda: call(times), times


def _empty_run() -> float:
    """Return the seconds of a run that computes one sum."""
    call, times = repeated(Variant(lambda x: x + 1, (jnp.zeros(()),)))
    call()
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) / times


if __name__ == "__main__":
    main()
