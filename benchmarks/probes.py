"""Time that groups of probes, or single metrics, add to a decode step.

    python -m benchmarks.probes --shape 15m --batch 1 16
    python -m benchmarks.probes --shape smollm2-135m --batch 1 16 --metrics self_certainty fisher_rao --repeats 20

Times a chunk of steps inside one device call, without prefill, transfer or tokenizer: one group after another, or pairs
of calls of a step of all groups, with and without some metrics. XLA drops what computes nothing that is returned.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jaxtrace as jt
from benchmarks.intervals import LEAST_PAIRS, LEVEL, median_interval
from benchmarks.machine import this_machine
from benchmarks.options import add_batch, add_model, add_variants, benchmark_parser
from benchmarks.shapes import checkpoint, random_tokens
from benchmarks.table import BenchmarkTable
from benchmarks.timing import interleave
from jaxtrace.engine.measure import StepTrace
from jaxtrace.engine.step import State, decode_step, init_state, prefill, stop_rules
from jaxtrace.schema import GROUPS, METRICS

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
    parser.add_argument("--metrics", nargs="+", choices=[*METRICS], help="metrics whose own cost is measured, in pairs")
    args = parser.parse_args()
    if args.metrics and args.repeats < LEAST_PAIRS:
        parser.error(f"--repeats is {args.repeats}; give {LEAST_PAIRS} or more pairs with --metrics")
    machine = this_machine()
    table = of_metrics(args) if args.metrics else of_groups(args)
    dataclasses.replace(table, above=(machine.line, *table.above)).publish(args.out)


def of_groups(args: argparse.Namespace) -> BenchmarkTable:
    """Return the time of a step with each choice of groups."""
    model = jt.load(str(checkpoint(args.shape, args.workdir)))
    rows = []
    for batch in args.batch:
        calls = {
            name: _steps(model, jt.Probes.of(*CHOICES[name]), _tokens(args.shape, batch), args.steps)
            for name in args.variants
        }
        timed = interleave(calls, args.repeats)
        micro = {name: t.fastest / args.steps * 1e6 for name, t in timed.items()}
        base = micro.get("none")
        rows += [
            [str(batch), name, f"{x:.0f}", "–" if base is None else f"{x - base:+.0f}"] for name, x in micro.items()
        ]
    return BenchmarkTable(
        title=f"Probe groups, {args.shape}: {args.steps} steps per call, fastest of {args.repeats}",
        columns=("batch", "probes", "µs/step", "µs over none"),
        rows=rows,
    )


def of_metrics(args: argparse.Namespace) -> BenchmarkTable:
    """Return the ratio of the times of a step of all groups with and without some metrics, from interleaved pairs."""
    model = jt.load(str(checkpoint(args.shape, args.workdir)))
    rows = []
    for batch in args.batch:
        steps = functools.partial(_steps, model, jt.Probes.all(), _tokens(args.shape, batch), args.steps)
        timed = interleave({"with": steps(), "without": steps(dropped=tuple(args.metrics))}, args.repeats)
        ratios = np.divide(timed["with"].seconds, timed["without"].seconds)
        median, low, high = median_interval(ratios)
        micro = [f"{t.median / args.steps * 1e6:.0f}" for t in timed.values()]
        rows.append([str(batch), *micro, *(f"{x - 1:+.1%}" for x in (median, low, high))])
    return BenchmarkTable(
        title=f"Cost of {len(args.metrics)} metrics, {args.shape}: {args.steps} steps per call",
        above=(f"Metrics: {', '.join(args.metrics)}. The step records every group.",),
        columns=("batch", "µs/step with", "µs/step without", "median of ratios", "low", "high"),
        rows=rows,
        below=(f"Median of {args.repeats} interleaved pairs, and its {LEVEL:.0%} interval from order statistics.",),
    )


def _tokens(shape: str, batch: int) -> np.ndarray:
    return np.array(random_tokens(shape, batch, 32), np.int32)


def _steps(
    model: jt.Model, probes: jt.Probes, tokens: np.ndarray, steps: int, dropped: tuple[str, ...] = ()
) -> Callable[[], StepTrace]:
    """Return a call that runs `steps` steps from the end of the same prompt and returns all metrics but `dropped`."""
    batch, width = tokens.shape
    static = {"config": model.config, "probes": probes}
    lengths = np.full(batch, width, np.int32)
    state = init_state(model.config, model.params, batch, 64 + steps, probes, prompt_length=jnp.asarray(lengths))
    feed = jax.jit(prefill, static_argnames=tuple(static))
    held = [feed(model.params, state, tokens, lengths, **static)]
    step = functools.partial(decode_step, stop=stop_rules(), **static)

    @functools.partial(jax.jit, donate_argnames="state")
    def run(params: dict[str, jax.Array], state: State) -> tuple[State, StepTrace]:
        def body(state: State, _: None) -> tuple[State, StepTrace]:
            state, trace = step(params, state)
            return state, dataclasses.replace(trace, **dict.fromkeys(dropped))

        return jax.lax.scan(body, state, length=steps)

    def call() -> StepTrace:
        start = dataclasses.replace(held[0], length=jnp.asarray(lengths))
        held[0], trace = jax.block_until_ready(run(model.params, start))
        return trace

    return call


if __name__ == "__main__":
    main()
