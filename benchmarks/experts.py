"""Ways to compute experts, by the number of rows: time of one feed-forward block.

python -m benchmarks.experts --rows 1 8 64 512 --number 32 --chosen 4 --embed 1024 --feed-forward 512
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks.machine import this_machine
from benchmarks.options import benchmark_parser
from benchmarks.table import BenchmarkTable
from benchmarks.timing import interleave
from jaxtrace.models import experts

TILES = (1, 4, 8, 16, 32, 64, 128)  # rows of one expert at once
VARIANTS = {
    "as jaxtrace chooses": experts.compute_experts,
    "dense": experts.dense,
    "ragged_dot": experts.ragged,
    **{f"tiles of {size}": functools.partial(experts.tiled, size=size) for size in TILES},
}


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64, 256, 1024], help="tokens at once")
    parser.add_argument("--number", type=int, default=128, help="number of experts")
    parser.add_argument("--chosen", type=int, default=8, help="experts of each token")
    parser.add_argument("--embed", type=int, default=2048, help="width of the residual stream")
    parser.add_argument("--feed-forward", type=int, default=768, help="hidden width of an expert")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each variant")
    args = parser.parse_args()
    e, f, d = args.number, args.feed_forward, args.embed
    keys = jax.random.split(jax.random.key(0), 5)
    shapes = (e, f, d), (e, f, d), (e, d, f)
    draw = functools.partial(jax.random.normal, dtype=args.dtype)
    weights = experts.ExpertWeights(*(0.02 * draw(key, shape) for key, shape in zip(keys, shapes, strict=False)))
    rows = []
    for count in args.rows:
        x, scores = draw(keys[3], (count, d)), jax.random.normal(keys[4], (count, e))
        weight, expert = jax.lax.top_k(jax.nn.softmax(scores), args.chosen)
        chosen, used = experts.Chosen(expert, weight), len(jnp.unique(expert))
        compiled = {name: jax.jit(functools.partial(VARIANTS[name], activation="silu")) for name in args.variants}
        calls = {name: functools.partial(_run, call, x, chosen, weights) for name, call in compiled.items()}
        times = interleave(calls, args.repeats)
        rows += [(f"{count}", f"{used}", name, f"{1e3 * times[name].median:.2f}") for name in args.variants]
    BenchmarkTable(
        title=f"Experts: {args.chosen} of {e}, {f} wide, stream {d} wide, {args.dtype}",
        columns=("rows", "experts in use", "variant", "ms"),
        rows=rows,
        above=(this_machine().line,),
        below=(f"Medians of {args.repeats} calls.",),
    ).publish(args.out)


def _run(
    call: Callable[..., jax.Array], x: jax.Array, chosen: experts.Chosen, weights: experts.ExpertWeights
) -> jax.Array:
    return call(x, chosen, weights).block_until_ready()


if __name__ == "__main__":
    main()
