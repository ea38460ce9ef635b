"""How a study reports the progress of its long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jaxtrace.run import Run
    from jaxtrace.traces.trace import Trace

OnCount = Callable[[int, int], None]  # called with (items done, items in all)


class Progress(Protocol):
    """Shows long work to a user; the command line draws bars."""

    def run(self, label: str, run: Run) -> Trace:
        """Execute a prepared run to its end and return its trace."""
        ...

    def counter(self, label: str, unit: str) -> AbstractContextManager[OnCount]:
        """Open a counter of `unit`, such as "prompts", called with the numbers of items done and in all."""
        ...


class Silent:
    """Progress that shows nothing."""

    def run(self, label: str, run: Run) -> Trace:
        """Execute a prepared run to its end and return its trace."""
        return run.trace()

    @contextmanager
    def counter(self, label: str, unit: str) -> Iterator[OnCount]:
        """Open a counter that ignores its calls."""
        yield lambda done, total: None


SILENT = Silent()
