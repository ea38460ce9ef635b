"""How a run shows that it goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from jaxtrace.cli.app import console, errors

if TYPE_CHECKING:
    from jaxtrace.compilation import Compilations
    from jaxtrace.observing.profile import Profile
    from jaxtrace.observing.tensorboard import Board
    from jaxtrace.run import Run
    from jaxtrace.tracing.trace import Trace


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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("prompts  {task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, disable=console.quiet) as progress:
        bar = progress.add_task(label, total=run.total, completed=run.done, rate="compiling")
        began, tokens, entropy = time.monotonic(), 0, 0.0

        def on_progress(new_prompts: int, new_tokens: int, new_entropy: float) -> None:
            nonlocal tokens, entropy
            tokens, entropy = tokens + new_tokens, entropy + new_entropy
            working = max(time.monotonic() - began - compiled.seconds, 1e-9)
            rate = f"{tokens / working:.0f} tokens/s"
            if tokens and entropy == entropy:
                rate += f"  mean entropy {entropy / tokens:.3f} nats"
            progress.update(bar, advance=new_prompts, rate=rate)
            for watching in filter(None, (board, profile)):
                watching.on_progress(new_prompts, new_tokens, new_entropy)

        return run.trace(on_progress, board.on_rows if board else lambda _: None)
