"""Two ways to take the lens at every n-th step: a branch in one program, or a program of each kind.

    python -m benchmarks.lens_steps --shape 15m --batch 1 16 --every 8

Each way runs a call of decode steps, one of which takes the lens; times are CPU seconds of the process, so that other
programs on the machine disturb them little.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxtrace as jt
from benchmarks.machine import this_machine
from benchmarks.options import add_batch, add_model, benchmark_parser
from benchmarks.shapes import checkpoint, random_tokens
from benchmarks.table import BenchmarkTable, ratio
from jaxtrace.engine.step import decode_step, init_state, prefill


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__)
    add_model(parser)
    add_batch(parser)
    parser.add_argument("--every", type=int, default=8, help="distance between steps with a lens")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each variant")
    args = parser.parse_args()
    model, rows = jt.load(str(checkpoint(args.shape, args.workdir))), []
    for batch in args.batch:
        rows += _rows(model, random_tokens(args.shape, batch, 32), args.every, args.repeats)
    BenchmarkTable(
        title=f"Lens at one step of {args.every}, {args.shape}",
        columns=("batch", "way", "CPU s to compile", "CPU ms/step", "vs plain steps"),
        rows=rows,
        above=(this_machine().line,),
        below=(f"Medians of {args.repeats} interleaved calls of {args.every} steps; no compile cache.",),
    ).publish(args.out)


def _rows(model: jt.Model, tokens: list[list[int]], every: int, repeats: int) -> list[list[str]]:
    whole, without = jt.Probes.all(), jt.Probes.all().without_lens()
    branch = jt.Probes(lens_every=every)
    ways = {
        "no lens": [(without, every)],
        "a branch in one program": [(branch, every)],
        "two programs": [(whole, 1), (without, every - 1)],
        "lens at every step": [(whole, every)],
    }
    compiled = {name: [_compiled(model, tokens, *part) for part in parts] for name, parts in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, parts in compiled.items():
            began = time.process_time()
            for _, run in parts:
                run()
            seconds[name].append((time.process_time() - began) / every)
    steps = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        [
            str(len(tokens)),
            name,
            f"{sum(cpu for cpu, _ in parts):.1f}",
            f"{1e3 * steps[name]:.2f}",
            ratio(steps[name], steps["no lens"]),
        ]
        for name, parts in compiled.items()
    ]


def _compiled(
    model: jt.Model, tokens: list[list[int]], probes: jt.Probes, steps: int
) -> tuple[float, Callable[[], Any]]:
    """Return the CPU seconds that a call of decode steps took to compile, and a function that runs it once."""
    batch, width = len(tokens), len(tokens[0])
    static = {"config": model.config, "probes": probes}
    first = jnp.full(batch, width, jnp.int32)
    state = init_state(model.config, model.params, batch, 64, probes, first=first)
    lengths = np.full(batch, width, np.int32)
    state = jax.jit(prefill, static_argnames=tuple(static))(
        model.params, state, np.array(tokens, np.int32), lengths, **static
    )

    def run(params: Any, state: Any) -> Any:
        step = functools.partial(decode_step, params, **static)
        return jax.lax.scan(lambda state, _: step(state), state, length=steps)[1]

    lowered = jax.jit(run).lower(model.params, state)
    began = time.process_time()
    program = lowered.compile()
    took = time.process_time() - began
    return took, lambda: jax.block_until_ready(program(model.params, state))


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    main()
