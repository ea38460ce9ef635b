"""Time that each group of probes adds to a decode step.

    python -m benchmarks.probes --shape 15m --batch 1 16

Times a chunk of steps inside one device call, without prefill, transfer or tokenizer, one group after another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxtrace as jt
from benchmarks.machine import this_machine
from benchmarks.options import add_batch, add_model, add_variants, benchmark_parser
from benchmarks.shapes import checkpoint, random_tokens
from benchmarks.table import BenchmarkTable
from benchmarks.timing import interleave
from jaxtrace.engine.loop import decode_chunk
from jaxtrace.engine.samplers import Greedy
from jaxtrace.engine.step import init_state, prefill, stop_rules
from jaxtrace.schema import GROUPS

DENSE = tuple(group for group in GROUPS if group != "router")  # groups of the shapes, none of which has experts
CHOICES = {
    "none": (),
    **{group: (group,) for group in DENSE},
    "all but lens": tuple(group for group in DENSE if group != "lens"),
    "all": ("all",),
}


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    add_model(parser)
    add_variants(parser, CHOICES)
    add_batch(parser)
    parser.add_argument("--steps", type=int, default=16, help="decode steps per call")
    args = parser.parse_args()
    machine = this_machine()
    model = jt.load(str(checkpoint(args.shape, args.workdir)))
    rows = []
    for batch in args.batch:
        tokens = np.array(random_tokens(args.shape, batch, 32), np.int32)
        calls = {name: _steps(model, jt.Probes.of(*CHOICES[name]), tokens, args.steps) for name in args.variants}
        timed = interleave(calls, args.repeats)
        micro = {name: t.fastest / args.steps * 1e6 for name, t in timed.items()}
        base = micro.get("none")
        rows += [
            [str(batch), name, f"{x:.0f}", "–" if base is None else f"{x - base:+.0f}"] for name, x in micro.items()
        ]
    BenchmarkTable(
        title=f"Probe groups, {args.shape}: {args.steps} steps per call, fastest of {args.repeats}",
        columns=("batch", "probes", "µs/step", "µs over none"),
        rows=rows,
        above=(machine.line,),
    ).publish(args.out)


def _steps(model: jt.Model, probes: jt.Probes, tokens: np.ndarray, steps: int) -> Callable[[], None]:
    """Return a call that runs `steps` steps from the end of the same prompt."""
    batch, width = tokens.shape
    static = {"config": model.config, "probes": probes}
    state = init_state(model.config, model.params, batch, 64 + steps, probes)
    feed = jax.jit(prefill, static_argnames=tuple(static))
    held = [feed(model.params, state, tokens, np.full(batch, width, np.int32), **static)]

    def call() -> None:
        start = dataclasses.replace(held[0], length=jnp.full(batch, width, jnp.int32))
        held[0], *rest = decode_chunk(model.params, start, stop_rules(), sampler=Greedy(), steps=steps, **static)
        jax.block_until_ready((held[0], rest))

    return call


if __name__ == "__main__":
    main()
