"""How long work shows that it goes on: bars on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jaxtrace.cli.app import console, errors

if TYPE_CHECKING:
    from jaxtrace.compilation import Compilations
    from jaxtrace.observing.profile import Profile
    from jaxtrace.observing.tensorboard import Board
    from jaxtrace.run import Run
    from jaxtrace.traces.trace import Trace


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


def with_progress(
    run: Run,
    compiled: Compilations,
    label: str = "tracing",
    board: Board | None = None,
    profile: Profile | None = None,
) -> Trace:
    """Runs to the end with a bar on standard error.

    Args:
      run: one that is ready.
      compiled: what is compiled meanwhile; its time is not counted as the run's.
      label: before the bar.
      board, profile: what else follows the run.
    """
    with counter(label, "prompts") as show:
        show(run.done, run.total, "compiling")
        began, prompts, tokens, entropy = time.monotonic(), run.done, 0, 0.0

        def on_progress(new_prompts: int, new_tokens: int, new_entropy: float) -> None:
            nonlocal prompts, tokens, entropy
            prompts, tokens, entropy = prompts + new_prompts, tokens + new_tokens, entropy + new_entropy
            working = max(time.monotonic() - began - compiled.seconds, 1e-9)
            rate = f"{tokens / working:.0f} tokens/s"
            if tokens and entropy == entropy:
                rate += f"  mean entropy {entropy / tokens:.3f} nats"
            show(prompts, run.total, rate)
            for watching in filter(None, (board, profile)):
                watching.on_progress(new_prompts, new_tokens, new_entropy)

        return run.trace(on_progress, board.on_rows if board else lambda _: None)
