"""Estimates for a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.console import Group
from rich.text import Text

from jaxtrace.checkpoints.huggingface import default_dtype
from jaxtrace.errors import visible
from jaxtrace.figures.tables.parts import plain, stacked_table
from jaxtrace.memory import format_bytes
from jaxtrace.sweeping.estimate import CellEstimate, Machine


def sweep_table(estimates: Sequence[CellEstimate], machine: Machine) -> Group:
    """Return the prompts, tokens, bytes and time of every cell, their sums, and their basis; in 80 columns."""
    table = stacked_table("model, task\n  run", "prompts\ntokens", "a token\nbytes", "\ntime")
    for estimate in estimates:
        cell = estimate.cell
        table.add_row(
            Text.assemble((visible(f"{cell.model_name}, {cell.task}"), "bold"), f"\n  {visible(cell.run)}"),
            f"{_known(estimate.prompts, _count)}\n{_known(estimate.tokens, _count)}",
            f"{_known(estimate.token_bytes, format_bytes)}\n{_known(estimate.bytes, format_bytes)}",
            f"\n{_known(estimate.seconds, _duration)}{'*' * estimate.measured}",
        )
    prompts = _sum((estimate.prompts for estimate in estimates), _count)
    tokens = _sum((estimate.tokens for estimate in estimates), _count)
    size = _sum((estimate.bytes for estimate in estimates), format_bytes)
    seconds = _sum((estimate.seconds for estimate in estimates), _duration)
    table.add_row(Text(f"\n{len(estimates)} cells", "bold"), f"\n{prompts}\n{tokens}", f"\n\n{size}", f"\n\n{seconds}")
    return Group(table, plain("\n".join(["", *_basis(estimates, machine)])))


def _basis(estimates: Sequence[CellEstimate], machine: Machine) -> list[str]:
    """Return lines on the basis of the numbers, and on what could not be checked."""
    dtypes = sorted({estimate.cell.config.dtype or default_dtype().__name__ for estimate in estimates})
    lines = [
        "tokens  upper bound for generated text: an end of text ends a row sooner",
        "bytes   of the trace before compression",
        f"time    lower bound, from {machine}:",
        f"        reading the weights ({', '.join(dtypes)}) and the matrix products",
    ]
    if any(estimate.measured for estimate in estimates):
        lines.append("*       from the tokens/s of a complete cell of this model and these probes")
    for unchecked in sorted({each for estimate in estimates for each in estimate.unchecked}):
        cells = sum(unchecked in estimate.unchecked for estimate in estimates)
        lines.append(f"not checked here: {unchecked} ({cells} cells)")
    return lines


def _known(value: float | None, form: Callable[[float], str]) -> str:
    return "?" if value is None else form(value)


def _sum(values: Iterable[float | None], form: Callable[[float], str]) -> str:
    values = [*values]
    known = [value for value in values if value is not None]
    return form(sum(known)) + " + ?" * (len(known) < len(values))


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.{seconds < 20 * size:d}f} {unit}"
    return f"{seconds:.1f} s"
