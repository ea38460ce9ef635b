"""Block sizes of the GPU kernels: time of each size beside the one that the kernel has.

    python -m benchmarks.block_sizes --dtype bfloat16 --out results/block-sizes.csv

One constant of a kernel's module changes at a time. A size that wins on every shape belongs in that module.
"""

from __future__ import annotations

import importlib
from typing import Any
from unittest import mock

import jax

from benchmarks.kernel_shapes import parse_shape, shape_text
from benchmarks.kernel_variants import reason, variants
from benchmarks.kernels import repeated
from benchmarks.machine import this_machine
from benchmarks.options import add_dtype, benchmark_parser
from benchmarks.table import BenchmarkTable
from benchmarks.timing import interleave, say

# Operation → (module of jaxtrace.kernels, its constant, sizes to try).
SIZES: dict[str, tuple[tuple[str, str, tuple[int, ...]], ...]] = {
    "softmax_moments": (
        ("softmax_moments.gpu", "TILE", (2048, 4096, 8192)),
        ("softmax_moments.gpu", "BLOCKS", (512, 1024, 2048)),
    ),
    "unembed_moments": (("unembed_moments.gpu", "BLOCKS", (132, 264, 528)),),
    "decode_attention": (("prefill_attention.gpu", "SHARE", (128, 256, 512, 1024)),),
    "head_dispersion": (("head_dispersion.gpu", "SHARE", (128, 256, 512, 1024)),),
}
SHAPES = {
    "softmax_moments": "R=64,V=128256",
    "unembed_moments": "G=16,R=1,D=2048,V=128256",
    "decode_attention": "B=8,S=4096,N=32,K=8,H=128",
    "head_dispersion": "B=8,T=1,S=4096,N=32,K=8,H=128",
}
TINY = {
    "softmax_moments": "R=2,V=600",
    "unembed_moments": "G=2,R=1,D=64,V=300",
    "decode_attention": "B=1,S=64,N=2,K=1,H=16",
    "head_dispersion": "B=1,T=1,S=64,N=2,K=1,H=16",
}
COLUMNS = ("operation", "shape", "constant", "size", "ms", "spread", "× the kernel's", "note")


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--op", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument(
        "--impl", default="pallas_gpu", help="pallas_gpu, or pallas_gpu_interpret where there is no GPU"
    )
    parser.add_argument("--tiny", action="store_true", help="shapes for the interpreter")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each size")
    add_dtype(parser)
    args = parser.parse_args()
    machine, rows = this_machine(), []

    def table() -> BenchmarkTable:
        title = f"Block sizes of {args.impl} on {jax.default_backend()}, {args.dtype}, {args.repeats} repeats"
        return BenchmarkTable(
            title, COLUMNS, rows, above=(machine.line,), below=("“*”: the size that the kernel has.",)
        )

    for op in args.op:
        for module, constant, sizes in SIZES[op]:
            rows += _rows(op, (TINY if args.tiny else SHAPES)[op], module, constant, sizes, args)
            table().write(args.out)  # a run that is stopped leaves its finished constants
    table().publish(args.out)


def _rows(op: str, text: str, module: str, constant: str, sizes: tuple[int, ...], args: Any) -> list[list[str]]:
    """Return the rows of one constant."""
    shape = parse_shape(text, op)
    kernel = importlib.import_module(f"jaxtrace.kernels.{module}")
    current = getattr(kernel, constant)
    say(f"{op} {constant} {sizes} {args.dtype}")
    calls, failed = {}, {}
    for size in dict.fromkeys((current, *sizes)):
        with mock.patch.object(kernel, constant, size):
            jax.clear_caches()
            timed, refused = variants(op, shape, args.dtype, [args.impl], ())
            try:
                calls[size] = repeated(timed[args.impl])
            except Exception as error:  # a size that does not fit the device leaves the others
                failed[size] = refused.get(args.impl) or reason(error)
    times = interleave({str(size): call for size, (call, _) in calls.items()}, args.repeats, pause=0)
    seconds = {size: times[str(size)].median / count for size, (_, count) in calls.items()}
    head = lambda size: [op, shape_text(shape), f"{module}.{constant}", f"{size}{'*' * (size == current)}"]  # noqa: E731
    rows = [
        [
            *head(size),
            f"{seconds[size] * 1e3:.4g}",
            f"{times[str(size)].spread:.0%}",
            f"{seconds[size] / seconds[current]:.3f}" if current in seconds else "–",
            "fastest" if seconds[size] == min(seconds.values()) else "",
        ]
        for size in sorted(seconds)
    ]
    return rows + [[*head(size), "", "", "", why] for size, why in failed.items()]


if __name__ == "__main__":
    main()
