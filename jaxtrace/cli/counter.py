"""A bar on standard error for what is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jaxtrace.cli.app import console, errors


@contextmanager
def counter(label: str, unit: str) -> Iterator[Callable[..., None]]:
    """Gives a function of (how many are done, of how many, what else to say); the bar is there from its first call."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}  {{task.fields[more]}}"),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=errors, disable=console.quiet)
    bar = progress.add_task(label, more="")

    def show(done: int, total: int, more: str = "") -> None:
        progress.start()
        progress.update(bar, completed=done, total=total, more=more)

    try:
        yield show
    finally:
        if progress.live.is_started:
            progress.stop()
