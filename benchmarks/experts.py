"""Ways to compute experts, by the number of rows: time of one feed-forward block, or its cost on an absent TPU.

python -m benchmarks.experts --shape qwen3-30b-a3b --rows 1 4 16 64 256 1024 4096 --dtype float32
python -m benchmarks.experts --shape qwen3-30b-a3b gpt-oss-20b gemma-4-26b --topology v5e-16

On this machine the ways are called in turn. For a TPU they are compiled by libtpu for one of the slice's devices, which
holds its part of the experts in stacked layers.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding
from jaxtrace.kernels import compiling_for

from benchmarks.machine import this_machine
from benchmarks.options import benchmark_parser
from benchmarks.table import BenchmarkTable
from benchmarks.timing import interleave
from jaxtrace.models.expert_products import (
    Chosen,
    ExpertForm,
    ExpertWeights,
    compute_experts,
    dense,
    ragged,
    tile_size,
    tiled,
)
from jaxtrace.models.stacked import LayerOfStack, whole_layer
from jaxtrace.planning.topology import Topology, find_topology

MIB = 2**20
LAYERS = 2  # of the stack of weights that a compiled program gets
DRAWS = 200  # choices of experts over which the number of tiles is averaged
# Most rows that these are timed for on a CPU, where ragged_dot computes every expert for all rows.
SLOW = {"ragged_dot": 16, "dense": 256}
FORM = ExpertForm("silu")


@dataclass(frozen=True)
class Shape:
    """Sizes of a layer of experts.

    Attributes:
      number: number of experts.
      chosen: number of experts of each token.
      feed_forward: hidden width of an expert.
      embed: width of the residual stream.
    """

    number: int
    chosen: int
    feed_forward: int
    embed: int

    @property
    def entries(self) -> int:
        """Entries of the weights of one expert."""
        return 3 * self.feed_forward * self.embed


SHAPES = {
    "qwen3-30b-a3b": Shape(128, 8, 768, 2048),
    "gpt-oss-20b": Shape(32, 4, 2880, 2880),
    "gemma-4-26b": Shape(128, 8, 704, 2816),
}
Way = Callable[..., jax.Array]


def gathered(x: jax.Array, chosen: Chosen, weights: Any, form: ExpertForm) -> jax.Array:
    """Gather the weights of each row's experts, and multiply them as a batch."""
    gate, up, down = (whole_layer(w)[chosen.expert] for w in (weights.gate, weights.up, weights.down))
    hidden = jax.nn.silu(jnp.einsum("rd,rcfd->rcf", x, gate)) * jnp.einsum("rd,rcfd->rcf", x, up)
    return jnp.einsum("rcf,rcdf,rc->rd", hidden, down, chosen.weight)


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=["qwen3-30b-a3b"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1024, 4096], help="tokens at once")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="on this machine")
    parser.add_argument("--topology", help="compile for a slice of TPUs, such as v5e-16, and run nothing")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each way")
    args = parser.parse_args()
    (_compile if args.topology else _time)(args)


def _ways(rows: int, shape: Shape, platform: str) -> dict[str, Way]:
    """Return the ways to compare: the chosen size of tiles, its neighbours, and the others that are feasible."""
    size = tile_size(rows * shape.chosen / shape.number, platform)
    sizes = [each for each in (size // 2, size, 2 * size) if each]
    ways: dict[str, Way] = {f"tiles of {each}": functools.partial(tiled, size=each) for each in sizes}
    if rows * shape.chosen <= shape.number:  # it copies the weights of each row's experts
        ways["gathered"] = gathered
    ways |= {"ragged_dot": ragged, "dense": dense}
    return {way: call for way, call in ways.items() if platform != "cpu" or rows <= SLOW.get(way, rows)}


def _time(args: argparse.Namespace) -> None:
    lines = []
    for name in args.shape:
        shape, keys = SHAPES[name], jax.random.split(jax.random.key(0), 5)
        draw = functools.partial(jax.random.normal, dtype=args.dtype)
        sizes = _weight_shapes(shape.number, shape)
        weights = ExpertWeights(*(0.02 * draw(key, size) for key, size in zip(keys, sizes, strict=False)))
        for rows in args.rows:
            x, scores = draw(keys[3], (rows, shape.embed)), jax.random.normal(keys[4], (rows, shape.number))
            weight, expert = jax.lax.top_k(jax.nn.softmax(scores), shape.chosen)
            ways = {"as jaxtrace chooses": compute_experts, **_ways(rows, shape, jax.default_backend())}
            compiled = {way: jax.jit(functools.partial(function, form=FORM)) for way, function in ways.items()}
            calls = {
                way: functools.partial(_run, call, x, Chosen(expert, weight), weights) for way, call in compiled.items()
            }
            times, used = interleave(calls, args.repeats), len(np.unique(expert))
            read = used * shape.entries * x.dtype.itemsize
            lines += [
                (
                    name,
                    f"{rows:,}",
                    f"{used}",
                    way,
                    f"{1e3 * times[way].fastest:.1f}",
                    f"{1e3 * times[way].median:.1f}",
                    f"{read / times[way].fastest / 1e9:.1f}",
                )
                for way in ways
            ]
    BenchmarkTable(
        title=f"Ways to compute the experts of a layer, {args.dtype}",
        columns=("shape", "rows", "experts in use", "way", "fastest, ms", "median, ms", "GB/s"),
        rows=lines,
        above=(this_machine().line,),
        below=(f"{args.repeats} calls of each, in turn. GB/s counts the weights of the experts in use, each once.",),
    ).publish(args.out)


def _run(call: Way, x: jax.Array, chosen: Chosen, weights: ExpertWeights) -> jax.Array:
    return call(x, chosen, weights).block_until_ready()


def _compile(args: argparse.Namespace) -> None:
    topology = find_topology(args.topology)
    jax.config.update("jax_platforms", "cpu")
    lines = [
        (name, f"{rows:,}", way, *_cost(topology, SHAPES[name], rows, way, function))
        for name in args.shape
        for rows in args.rows
        for way, function in _ways(rows, SHAPES[name], "tpu").items()
    ]
    columns = ("times", "weights read, MB", "GFLOP", "at least, ms", "temporaries, MiB")
    BenchmarkTable(
        title=f"Ways to compute the experts of a layer, bfloat16, on one of {topology.name}",
        columns=("shape", "rows", "way", *columns),
        rows=lines,
        below=(
            "Compiled by libtpu for one device, which holds its part of the experts of stacked layers and computes all "
            "rows. “Times” is how often a loop's body runs, on average over random choices. Operations and temporaries "
            "are the compiler's; it counts a loop's body once, so its operations are multiplied by “times”. Weights "
            "that a program copies are counted three times: read, written and read again. The least time is that of "
            "the weights or of the operations at the chip's published rates, whichever is longer.",
        ),
    ).publish(args.out)


def _cost(topology: Topology, shape: Shape, rows: int, way: str, function: Way) -> tuple[str, ...]:
    """Return how often a way's loop runs, and the cost of all that on one device."""
    devices, chip = topology.devices(), topology.chip
    held = shape.number // min(shape.number, len(devices))
    sharding = SingleDeviceSharding(devices[0])
    abstract = functools.partial(jax.ShapeDtypeStruct, sharding=sharding)
    stacks = [abstract((LAYERS, *size), jnp.bfloat16) for size in _weight_shapes(held, shape)]
    x, assignments = abstract((rows, shape.embed), jnp.bfloat16), (rows, shape.chosen)
    chosen: Any = Chosen(abstract(assignments, jnp.int32), abstract(assignments, jnp.float32))  # type: ignore

    def call(x: jax.Array, chosen: Chosen, stacks: list[jax.Array], layer: jax.Array) -> jax.Array:
        weights: Any = [LayerOfStack.of(stack, layer) for stack in stacks]
        return function(x, chosen, ExpertWeights(*weights), form=FORM)

    with compiling_for("tpu"):
        lowered = jax.jit(call, out_shardings=sharding).lower(x, chosen, stacks, abstract((), jnp.int32))
    program = lowered.compile()
    memory: Any = program.memory_analysis()
    cost: Any = program.cost_analysis()
    size = int(way.removeprefix("tiles of ")) if way.startswith("tiles") else None
    times = held if way == "dense" else _mean_tiles(shape, held, rows, size) if size else 1.0
    temporaries = memory.temp_size_in_bytes
    slices = rows * shape.chosen if way == "gathered" else held if way == "ragged_dot" else times
    copied = temporaries > slices * shape.entries * 2 / 4  # at least one of the three matrices, with some margin
    read = slices * shape.entries * 2 * (3 if copied else 1)
    flops = times * cost["flops"]
    assert chip.bandwidth is not None and chip.flops is not None
    least = max(read / chip.bandwidth, flops / chip.flops) * chip.devices
    return (
        f"{times:.1f}",
        f"{read / 1e6:,.0f}",
        f"{flops / 1e9:,.1f}",
        f"{1e3 * least:.3f}",
        f"{temporaries / MIB:,.1f}",
    )


def _mean_tiles(shape: Shape, held: int, rows: int, size: int) -> float:
    """Return the mean number of tiles of the first experts, for random choices of experts."""
    rng = np.random.default_rng(0)
    counts = rng.binomial(rows, shape.chosen / shape.number, size=(DRAWS, held))
    return float((-(-counts // size)).sum(-1).mean())


def _weight_shapes(number: int, shape: Shape) -> tuple[tuple[int, ...], ...]:
    f, d = shape.feed_forward, shape.embed
    return (number, f, d), (number, f, d), (number, d, f)


if __name__ == "__main__":
    main()
