"""A plan: memory of each device, work of each program, and whether the run fits."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxtrace.figures.tables.parts import lens_text, named_values
from jaxtrace.memory import format_bytes
from jaxtrace.models.config import DecoderConfig
from jaxtrace.parallel.mesh import mesh_text
from jaxtrace.planning.cost import active_parameter_count, parameter_count
from jaxtrace.planning.plan import Plan, Program


def plan_table(plan: Plan) -> Group:
    """Return the memory a run takes on each device, what limits its speed, and whether it fits."""
    return Group(_request(plan), "", _programs(plan), "", verdict(plan))


def verdict(plan: Plan) -> Text:
    """Return one line that says whether the run fits."""
    usable, device = format_bytes(plan.request.topology.usable), _device(plan)
    if plan.fits:
        return Text(f"fits: {format_bytes(plan.headroom)} of {usable} stay free on each {device}", style="green")
    larger = "decode" if plan.decode.total >= plan.prefill.total else "prefill"
    missing = format_bytes(-plan.headroom)
    return Text(f"does not fit: {larger} needs {missing} more than the {usable} of each {device}", "red")


def fitting_line(plan: Plan) -> Text:
    """Return one line on a run that fits."""
    request = plan.request
    run = f"{request.batch} rows on {request.topology.name} ({mesh_text(plan.mesh)})"
    free = f"{format_bytes(plan.headroom)} of {format_bytes(request.topology.usable)} stay free"
    return Text(f"{run}: {free}", style="green")


def _request(plan: Plan) -> Table:
    request, topology = plan.request, plan.request.topology
    devices = topology.chips * topology.chip.devices
    vision = request.config.vision
    if topology.platform == "cpu":
        hardware = f"{devices} CPU device{'s' * (devices > 1)} of this process"
    else:
        cores = f", {devices} cores" if devices > topology.chips else ""
        hardware = f"{topology.chips} {topology.chip.name} chip{'s' * (topology.chips > 1)}, {topology.shape}{cores}"
    return named_values(
        {
            "model": f"{request.model}, {_parameters(request.config)} in {request.dtype}",
            "topology": f"{hardware}; mesh {mesh_text(plan.mesh)}",
            "run": f"{request.batch} rows of {request.context:,} positions"
            + (f", at most {request.window_slots:,} in layers with windows" if request.window_slots else "")
            + (f", an image of {vision.max_tiles} tiles in each" if vision else ""),
            "probes": ", ".join(request.probes.groups) or "none",
            **lens_text(request.probes, request.config),
        }
    )


def _parameters(config: DecoderConfig) -> str:
    """Return the number of parameters, and of those that a token uses if they are fewer."""
    active = "" if config.experts is None else f" ({active_parameter_count(config):,} for each token)"
    return f"{parameter_count(config):,} parameters{active}"


def _programs(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(f"on each {_device(plan)}", style="bold")
    table.add_column("decode\none step", justify="right")
    table.add_column(f"prefill\n{plan.prefill_rows} × {plan.prefill_positions} positions", justify="right")
    columns = [_cells(plan, program) for program in (plan.decode, plan.prefill)]
    for name in dict.fromkeys(name for column in columns for name in column):
        if name in ("collectives", "bytes moved"):
            table.add_row()
        table.add_row(name, *(column.get(name, "–") for column in columns))
    return table


def _cells(plan: Plan, program: Program) -> dict[str, str]:
    work = program.work
    cells = {
        "weights": format_bytes(program.weights),
        "cache and state": format_bytes(program.state),
        **({"  recurrent": format_bytes(program.recurrent)} if program.recurrent else {}),
        "trace buffers": format_bytes(program.traces) if program.traces else "–",
        "temporaries": format_bytes(program.temporaries),
        "in all": format_bytes(program.total),
        "headroom": format_bytes(plan.request.topology.usable - program.total),
        "collectives": "" if program.collectives else ("none" if program.compiled else "–"),
    }
    cells |= {
        f"  {kind}": f"{each.count} × {format_bytes(each.bytes / each.count, 3)}"
        for kind, each in program.collectives.items()
    }
    cells |= {
        "bytes moved": format_bytes(work.all_bytes),
        "  of tracing": f"{format_bytes(work.tracing)} (+{work.tracing / (work.weights + work.cache):.1%})",
        "operations": _operations(work.all_flops),
        "  of tracing ": f"{_operations(work.tracing_flops)} (+{work.tracing_flops / work.flops:.1%})",
    }
    if (seconds := plan.seconds(work)) is not None:
        bandwidth, compute = seconds
        latency = plan.collective_seconds(program) or 0.0
        cells |= {
            "time for the bytes": f"{1e3 * bandwidth:.3g} ms",
            "time for the operations": f"{1e3 * compute:.3g} ms",
            **({"time for the collectives": f"{1e3 * latency:.3g} ms"} if latency else {}),
            "tokens per second": f"at most {_tokens(plan, program) / (max(seconds) + latency):,.0f}",
        }
    return cells


def _tokens(plan: Plan, program: Program) -> int:
    """Return the number of tokens that one call of a program processes."""
    return plan.request.batch if program is plan.decode else plan.prefill_rows * plan.prefill_positions


def _operations(count: int) -> str:
    return f"{count / 1e9:.4g} GFLOP"


def _device(plan: Plan) -> str:
    chip = plan.request.topology.chip
    return "device" if chip.name == "cpu" else "chip" if chip.devices == 1 else "core"
