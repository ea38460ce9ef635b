"""Ctrl-C that is never lost: a signal sets a flag, and long loops raise KeyboardInterrupt where nothing is torn.

Python's own handler raises wherever the main thread is. In a callback that C++ calls, such as JAX's hook of the garbage
collector, the exception is printed and lost. Within `checked`, the first Ctrl-C sets a flag and `check` raises between
chunks of steps; a second one raises at once. Handlers are installed by `checked` for its block, in the main thread and
only in place of Python's own, and by the command line for a whole command (`jaxtrace.cli.signals`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_received: list[int] = []  # signals since the last `forget`
_in_hand: list[Callable[[], bool]] = []


def requested() -> int | None:
    """Return the number of the first signal that asked the program to end, or None."""
    return _received[0] if _received else None


def check() -> None:
    """Raise KeyboardInterrupt if a signal has asked the program to end."""
    if _received:
        raise KeyboardInterrupt


def request(number: int) -> None:
    """Ask the program to end at the next `check`; a handler calls this."""
    _received.append(number)


def forget() -> None:
    """Forget the signals until now."""
    _received.clear()


def work_in_hand() -> bool:
    """Return whether finished work would be lost if the program ended now."""
    return any(unsaved() for unsaved in tuple(_in_hand))


@contextmanager
def checked(unsaved: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Let Ctrl-C take effect at `check` within the block, and at its end.

    Args:
      unsaved: returns whether the block holds finished work that it will save if `check` raises.
    """
    alone = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if alone:
        forget()
        signal.signal(signal.SIGINT, _on_interrupt)
    _in_hand.append(unsaved)
    try:
        yield
        check()
    finally:
        _in_hand.remove(unsaved)
        if alone:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            forget()


def _on_interrupt(number: int, _: FrameType | None) -> None:
    check()
    request(number)
