"""What a sweep will come to, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxtrace.checkpoints.huggingface import default_dtype
from jaxtrace.figures.checkpoint import in_bytes
from jaxtrace.sweeping.estimate import Estimate, Machine


def sweep_table(estimates: Sequence[Estimate], machine: Machine) -> Group:
    """Every cell with its prompts, tokens, bytes and time, their sums, and what the numbers rest on; in 80 columns."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("model, task\n  run", overflow="fold")
    for header in ("prompts\ntokens", "a token\nbytes", "\ntime"):
        table.add_column(header, justify="right", no_wrap=True)
    for some in estimates:
        table.add_row(
            Text.assemble((f"{some.cell.model}, {some.cell.task}", "bold"), f"\n  {some.cell.run}"),
            f"{_shown(some.prompts, _count)}\n{_shown(some.tokens, _count)}",
            f"{_shown(some.token_bytes, in_bytes)}\n{_shown(some.bytes, in_bytes)}",
            f"\n{_shown(some.seconds, _duration)}{'*' * some.measured}",
        )
    prompts = _sum([some.prompts for some in estimates], _count)
    tokens = _sum([some.tokens for some in estimates], _count)
    size = _sum([some.bytes for some in estimates], in_bytes)
    seconds = _sum([some.seconds for some in estimates], _duration)
    table.add_row(Text(f"\n{len(estimates)} cells", "bold"), f"\n{prompts}\n{tokens}", f"\n\n{size}", f"\n\n{seconds}")
    return Group(table, Text("\n".join(["", *_basis(estimates, machine)])))


def _basis(estimates: Sequence[Estimate], machine: Machine) -> list[str]:
    """What the numbers rest on, and what could not be checked."""
    lines = [
        "tokens  at most, where texts are continued: an end of text ends a row sooner",
        "bytes   of the trace before compression",
        f"time    at the least, from {machine}:",
        f"        what reading the weights ({default_dtype().__name__}) and the products take",
    ]
    if any(some.measured for some in estimates):
        lines.append("*       at the tokens/s of a cell of this model and these probes that is done")
    for what in sorted({what for some in estimates for what in some.unchecked}):
        lines.append(f"not checked here: {what} ({sum(what in some.unchecked for some in estimates)} cells)")
    return lines


def _shown(value: float | None, form: Callable[[float], str]) -> str:
    return "?" if value is None else form(value)


def _sum(values: Sequence[float | None], form: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    return form(sum(known)) + " + ?" * (len(known) < len(values))


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.{seconds < 20 * size:d}f} {unit}"
    return f"{seconds:.1f} s"
