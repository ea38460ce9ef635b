"""Bytes and collectives of plain and traced decode steps of published sizes, compiled for TPUs that need not be here.

python -m benchmarks.tpu_plans --out benchmarks/tpu_plans.md
python -m benchmarks.tpu_plans --model gemma-3-1b llama-3.2-1b --out benchmarks/tpu_plans.md

Each size is compiled for the smallest v5e slice that fits its traced run. Rows of `--out` that this call does not
compile are kept, so that the sizes can be compiled in several calls.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from benchmarks.options import benchmark_parser
from benchmarks.table import BenchmarkTable
from jaxtrace import Probes
from jaxtrace.models.published import PUBLISHED
from jaxtrace.parallel.mesh import mesh_text
from jaxtrace.planning.hlo import Collective, collectives
from jaxtrace.planning.plan import Plan, Request, plan
from jaxtrace.planning.program import compile_program
from jaxtrace.planning.search import smallest_topology
from jaxtrace.planning.work import decode_work

BATCH = 8
NO_LENS = Probes.of("output", "attention", "dispersion", "hidden")
ONE_READING = Probes.of("output", "attention", "hidden")
MOST_TRACING, MOST_LENS = 0.02, 0.08  # of the bytes of a plain step
COLUMNS = (
    "model",
    "slice",
    "plain bytes",
    "tracing (no dispersion)",
    "lens",
    "collectives plain, no lens, traced",
    "bar",
)
COLUMNS += ("largest result", "least ms plain, traced", "missed bars")
BELOW = (
    f"Bars: tracing without the lens adds at most {MOST_TRACING:.0%} of the bytes of a plain step, the lens at most "
    f"{MOST_LENS:.0%}; a step has at most 2 collectives per layer and 3; none has a result larger than the residual "
    "stream of the rows in float32, which attention weights, keys and logits are.",
    "Tracing is all probes but the lens. Dispersion reads the keys a second time, and adds up the heads of all chips.",
    "Bytes of one chip, counted from the shapes as `jaxtrace plan` does; collectives from the compiled step. The least "
    "time is that of the bytes or of the operations, and of the collectives: 1 µs for each hop, from "
    "https://jax-ml.github.io/scaling-book/sharding (docs/plan.md).",
)


def main() -> None:
    """Run the benchmark of the command line."""
    parser = benchmark_parser(__doc__, markdown_only=True)
    names = [model.name for model in PUBLISHED]
    parser.add_argument("--model", nargs="+", choices=names, default=names, metavar="NAME", help="published sizes")
    parser.add_argument("--context", type=int, default=4096, help="positions of each row")
    args = parser.parse_args()
    rows = _rows_of(args.out)
    for name in args.model:
        rows[name] = measured(name, args.context)
        title = f"Decode steps of {BATCH} rows of {args.context:,} positions in bfloat16, on the smallest v5e slice"
        ordered = [rows[name] for name in names if name in rows]
        BenchmarkTable(title, COLUMNS, ordered, below=BELOW).publish(args.out)


def measured(name: str, context: int) -> list[str]:
    """Return the row of a published size."""
    traced = plan(name, "v5e-1", batch=BATCH, context=min(context, _context(name)))
    fitting = traced if traced.fits else smallest_topology(traced)
    if fitting is None:
        return [name, "none fits", *["–"] * (len(COLUMNS) - 2)]
    steps = [_step(fitting, probes) for probes in (Probes.none(), NO_LENS)] + [fitting]
    plain, no_lens, _ = (step.decode.work for step in steps)
    plain_bytes = plain.all_bytes
    tracing = (no_lens.all_bytes - plain_bytes) / plain_bytes
    lens = (fitting.decode.work.all_bytes - no_lens.all_bytes) / plain_bytes
    one_reading = decode_work(_request(fitting, ONE_READING).job()).all_bytes / plain_bytes - 1
    counts = [sum(each.count for each in step.decode.collectives.values()) for step in steps]
    config = fitting.request.config
    bar = 2 * config.num_layers + 3
    largest = max((_largest(step.decode.collectives) for step in steps), default=0)
    stream = 4 * BATCH // fitting.mesh["data"] * config.embed_dim
    bars = {"tracing": tracing <= MOST_TRACING, "lens": lens <= MOST_LENS}
    bars |= {"collectives": max(counts) <= bar, "largest result": largest <= stream}
    return [
        name,
        f"{fitting.request.topology.name} ({mesh_text(fitting.mesh)})",
        f"{plain_bytes / 2**30:.2f} GiB",
        f"{tracing:.1%} ({one_reading:.1%})",
        f"{lens:.1%}",
        ", ".join(map(str, counts)),
        str(bar),
        f"{largest / 2**10:.1f} KiB",
        ", ".join(f"{1e3 * _least_seconds(step):.3g}" for step in (steps[0], fitting)),
        ", ".join(bar for bar, met in bars.items() if not met) or "none",
    ]


def _step(fitting: Plan, probes: Probes) -> Plan:
    """Return a plan with the decode step of other probes, on the same mesh."""
    request = _request(fitting, probes)
    job = request.job()
    text = compile_program(job.lowered_decode()).text
    assert text is not None
    decode = dataclasses.replace(fitting.decode, collectives=collectives(text), work=decode_work(job))
    return dataclasses.replace(fitting, request=request, decode=decode)


def _request(fitting: Plan, probes: Probes) -> Request:
    """Return the request of a plan with other probes, on the same mesh."""
    request = fitting.request
    return dataclasses.replace(request, probes=probes.of_model(request.config), mesh=mesh_text(fitting.mesh))


def _least_seconds(step: Plan) -> float:
    seconds = step.seconds(step.decode.work)
    assert seconds is not None
    return max(seconds) + (step.collective_seconds(step.decode) or 0.0)


def _largest(by_kind: Mapping[str, Collective]) -> float:
    """Return the largest mean size of the results of a kind of collectives."""
    return max((each.bytes / each.count for each in by_kind.values()), default=0.0)


def _context(name: str) -> int:
    return next(model.config.context for model in PUBLISHED if model.name == name)


def _rows_of(out: Path | None) -> dict[str, list[str]]:
    """Return the rows of an earlier table by model."""
    if out is None or not out.exists():
        return {}
    cells = [line.strip("| ").split(" | ") for line in out.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    return {row[0]: row for row in cells if len(row) == len(COLUMNS) and row[0] != COLUMNS[0]}


if __name__ == "__main__":
    main()
