"""A plan as a table for the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxtrace.figures.checkpoint import in_bytes
from jaxtrace.parallel.mesh import written
from jaxtrace.planning.cost import parameter_count
from jaxtrace.planning.plan import Plan, Program


def plan_table(plan: Plan) -> Group:
    """What a run takes of each device, what bounds its speed, and whether it fits."""
    return Group(_what(plan), "", _each(plan), "", verdict(plan))


def verdict(plan: Plan) -> Text:
    """Whether it fits, in a line."""
    usable, device = in_bytes(plan.request.topology.usable), _device(plan)
    if plan.fits:
        return Text(f"fits: {in_bytes(plan.headroom)} of {usable} stay free on each {device}", style="green")
    larger = "decode" if plan.decode.total >= plan.prefill.total else "prefill"
    return Text(
        f"does not fit: {larger} needs {in_bytes(-plan.headroom)} more than the {usable} of each {device}", "red"
    )


def found_line(plan: Plan) -> Text:
    """A run that does fit, in a line."""
    request = plan.request
    where = f"{request.batch} rows on {request.topology.name} ({written(plan.mesh)})"
    return Text(f"{where}: {in_bytes(plan.headroom)} of {in_bytes(request.topology.usable)} stay free", style="green")


def _what(plan: Plan) -> Table:
    request, topology = plan.request, plan.request.topology
    devices = topology.chips * topology.chip.devices
    vision = request.config.vision
    if topology.platform == "cpu":
        where = f"{devices} CPU device{'s' * (devices > 1)} of this process"
    else:
        cores = f", {devices} cores" if devices > topology.chips else ""
        where = f"{topology.chips} {topology.chip.name} chip{'s' * (topology.chips > 1)}, {topology.shape}{cores}"
    rows = {
        "model": f"{request.model}, {parameter_count(request.config):,} parameters in {request.dtype}",
        "topology": f"{where}; mesh {written(plan.mesh)}",
        "run": f"{request.batch} rows of {request.context:,} positions"
        + (f", an image of {vision.max_tiles} tiles in each" if vision else ""),
        "probes": ", ".join(request.probes.groups) or "none",
    }
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _each(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(f"on each {_device(plan)}", style="bold")
    table.add_column("decode\none step", justify="right")
    table.add_column(f"prefill\n{plan.prefill_rows} × {plan.prefill_positions} positions", justify="right")
    cells = [_cells(plan, program) for program in (plan.decode, plan.prefill)]
    names = dict.fromkeys(name for column in cells for name in column)
    for name in names:
        if name in ("collectives", "bytes moved"):
            table.add_row()
        table.add_row(name, *(column.get(name, "–") for column in cells))
    return table


def _cells(plan: Plan, program: Program) -> dict[str, str]:
    work = program.work
    cells = {
        "weights": in_bytes(program.weights),
        "cache and state": in_bytes(program.state),
        "trace buffers": in_bytes(program.traces) if program.traces else "–",
        "temporaries": in_bytes(program.temporaries),
        "in all": in_bytes(program.total),
        "headroom": _signed(plan.request.topology.usable - program.total),
        "collectives": "" if program.collectives else ("none" if program.compiled else "–"),
    }
    cells |= {f"  {kind}": f"{x.count} × {in_bytes(x.bytes / x.count, 3)}" for kind, x in program.collectives.items()}
    cells |= {
        "bytes moved": in_bytes(work.all_bytes),
        "  of tracing": f"{in_bytes(work.tracing)} (+{work.tracing / (work.weights + work.cache):.1%})",
        "operations": _operations(work.all_flops),
        "  of tracing ": f"{_operations(work.tracing_flops)} (+{work.tracing_flops / work.flops:.1%})",
    }
    if (seconds := plan.seconds(work)) is not None:
        bandwidth, compute = seconds
        cells |= {
            "time for the bytes": f"{1e3 * bandwidth:.3g} ms",
            "time for the operations": f"{1e3 * compute:.3g} ms",
            "tokens per second": f"at most {_tokens(plan, program) / max(seconds):,.0f}",
        }
    return cells


def _tokens(plan: Plan, program: Program) -> int:
    """Tokens that one run of a program works on."""
    return plan.request.batch if program is plan.decode else plan.prefill_rows * plan.prefill_positions


def _operations(count: int) -> str:
    return f"{count / 1e9:.4g} GFLOP"


def _signed(count: int) -> str:
    return in_bytes(count) if count >= 0 else f"−{in_bytes(-count)}"


def _device(plan: Plan) -> str:
    chip = plan.request.topology.chip
    return "device" if chip.name == "cpu" else "chip" if chip.devices == 1 else "core"
