"""Progress bars on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jaxtrace.cli.output import console, errors, say

if TYPE_CHECKING:
    from jaxtrace.compilation import Compilations
    from jaxtrace.observing.profile import Profile
    from jaxtrace.observing.tensorboard import Board
    from jaxtrace.run import Run
    from jaxtrace.traces.trace import Trace


@contextmanager
def counter(label: str, unit: str) -> Iterator[Callable[..., None]]:
    """Open a bar.

    Args:
      label: text before the bar.
      unit: plural noun of what is counted.

    Yields:
      A function of (number done, total, further text); the bar appears at its first call.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}  {{task.fields[more]}}", markup=False),
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


class Bars:
    """Progress of a study: a bar for each of its runs and counters."""

    def __init__(self, compiled: Compilations) -> None:
        """Take the count of compilations, whose time is excluded from rates."""
        self._compiled = compiled

    def run(self, label: str, run: Run) -> Trace:
        """Execute a prepared run to its end and return its trace."""
        say(run.headline, to=errors)
        return with_progress(run, self._compiled, label)

    counter = staticmethod(counter)


def with_progress(
    run: Run,
    compiled: Compilations,
    label: str = "tracing",
    board: Board | None = None,
    profile: Profile | None = None,
) -> Trace:
    """Execute a run to its end with a bar on standard error, and return its trace.

    Args:
      run: prepared run.
      compiled: count of compilations during the run, whose time is excluded from the rate.
      label: text before the bar.
      board: TensorBoard writer to inform.
      profile: profiler to inform.
    """
    with counter(label, "prompts") as show:
        show(run.done, run.total, "compiling")
        began, prompts, tokens, entropy = time.monotonic() - compiled.seconds, run.done, 0, 0.0

        def on_progress(prompts_added: int, tokens_added: int, entropy_added: float) -> None:
            nonlocal prompts, tokens, entropy
            prompts, tokens, entropy = prompts + prompts_added, tokens + tokens_added, entropy + entropy_added
            working = max(time.monotonic() - began - compiled.seconds, 1e-9)
            rate = f"{tokens / working:.0f} tokens/s"
            if entropy > 0:  # neither NaN, without output probes, nor 0, without a finite value
                rate += f"  mean entropy {entropy / tokens:.3f} nats"
            show(prompts, run.total, rate)
            for observer in filter(None, (board, profile)):
                observer.on_progress(prompts_added, tokens_added, entropy_added)

        return run.trace(on_progress, board.on_rows if board else lambda _: None)
