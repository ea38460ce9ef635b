"""Signals that end a command: Ctrl-C, SIGTERM and SIGHUP write finished work, say how to resume, and exit with 128 + n.

The first signal sets the flag of `jaxtrace.interrupts`; loops check it between chunks, steps, parts and replies. If no
check comes within a second, a watching thread makes the handler raise where the main thread is, and repeats that, for a
callback of C++ may swallow it. If that does not help within 5 s (a long compilation), the thread ends the process, but
never while finished work is unsaved. A second Ctrl-C ends at once. Ignored signals (`nohup`, `&`) stay ignored.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from jaxtrace import interrupts
from jaxtrace.cli.output import fail
from jaxtrace.errors import JaxtraceError

INTERRUPTED = 128  # exit status of an interrupted command, less the number of the signal
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
RAISE_SECONDS = 1.0  # time that loops have to check the flag
END_SECONDS = 5.0  # time until the process ends from outside the main thread
AGAIN_SECONDS = 0.2  # wrappers such as `timeout` send one signal twice; a person is slower
SHOW_CURSOR = "\x1b[?25h"  # a live display of rich hides it
WAITING = "finished work is written once the running step ends; Ctrl-C again ends at once and loses it"

NOTHING_WRITTEN = "nothing is written; run the same command again"

Advice = Callable[[], str]


class Signals:
    """Handlers of the signals during a command; a context manager that ends an interrupted command with one line."""

    active: Signals | None = None

    def __init__(self) -> None:
        """Prepare; nothing is installed yet."""
        self.advice: Advice = lambda: ""
        self._handled: dict[int, Any] = {}
        self._closed = self._forced = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._handled = {n: old for n in SIGNALS if (old := signal.getsignal(n)) not in (signal.SIG_IGN, None)}
        interrupts.forget()
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._old_fd = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self._old_hook, sys.unraisablehook = sys.unraisablehook, self._on_unraisable
        self._watcher = threading.Thread(target=self._watch, name="jaxtrace-signals", daemon=True)
        self._watcher.start()
        Signals.active = self
        self.install()
        return self

    def install(self) -> None:
        """Install the handlers, again after a library has replaced one of them."""
        for number in self._handled:
            signal.signal(number, self._on_signal)

    def _settle(self) -> None:
        """Stop raising and ending from now on: the command is over and only has to say so."""
        with self._lock:
            self._closed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle()
        try:
            self._fail_if_interrupted(error)
        finally:
            self._restore()

    def _fail_if_interrupted(self, error: BaseException | None) -> None:
        number = interrupts.requested()
        if isinstance(error, KeyboardInterrupt):
            number, reason = number or signal.SIGINT, ""
        elif number is None or isinstance(error, (SystemExit, BrokenPipeError)):
            return
        elif error is None:
            fail("interrupted as it ended; everything is written", INTERRUPTED + number)
        else:  # an interrupt inside a callback of C++ may arrive as another error
            reason = str(error) if isinstance(error, JaxtraceError) else ""
        fail(self._line("interrupted", reason), INTERRUPTED + number)

    def _restore(self) -> None:
        if Signals.active is not self:
            return
        Signals.active = None
        for number, handler in self._handled.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        sys.unraisablehook = self._old_hook
        self._sender.close()  # ends the thread
        self._watcher.join()
        interrupts.forget()

    def _line(self, how: str, reason: str = "") -> str:
        return "; ".join(filter(None, (how, self.advice(), reason)))

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if interrupts.requested() is None:
            interrupts.request(number)
        elif self._forced:
            self._forced = False
            if not (self._closed or interrupts.work_in_hand()):
                raise KeyboardInterrupt

    def _on_unraisable(self, raised: sys.UnraisableHookArgs) -> None:
        if not (issubclass(raised.exc_type, KeyboardInterrupt) and interrupts.requested()):
            self._old_hook(raised)

    def _watch(self) -> None:
        """Wait for the first signal, and see to it that it ends the command."""
        number = self._next_signal(None)
        if number is not None:
            self._enforce(number)
        while self._receiver.recv(64):
            pass  # the command is over, and its handlers are still installed
        self._receiver.close()

    def _enforce(self, number: int) -> None:
        """Raise in the main thread or end the process, as the module says, until the command is over."""
        first = latest = time.monotonic()
        waiting = False
        while not self._closed:
            again, now = self._next_signal(RAISE_SECONDS), time.monotonic()
            if again == signal.SIGINT and now - first > AGAIN_SECONDS:
                self._end("interrupted twice and ended at once", INTERRUPTED + signal.SIGINT)
            elif again is not None:
                continue
            elif interrupts.work_in_hand():
                if not waiting and now - first > END_SECONDS:
                    _write_line(f"interrupted; {WAITING}")
                    waiting = True
                latest = now
            elif now - latest > END_SECONDS:
                self._end("interrupted", INTERRUPTED + number)
            else:
                self._raise_in_main_thread(number)

    def _next_signal(self, seconds: float | None) -> int | None:
        """Return the number of the next signal; None if there is none in time, or the command is over."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._receiver], [], [], left)[0]:
                return None
            received = self._receiver.recv(1)
            if not received:
                return None
            if received[0] in self._handled:
                return received[0]

    def _raise_in_main_thread(self, number: int) -> None:
        with self._lock:
            if self._closed:
                return
            self._forced = True
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, number)  # a real signal, which also wakes a waiting system call
        self._next_signal(AGAIN_SECONDS)  # this one

    def _end(self, how: str, status: int) -> None:
        with self._lock:
            if not self._closed:
                _write_line(self._line(how))
                os._exit(status)


def on_interrupt(advice: Advice) -> None:
    """Set what the line of an interrupted command says after "interrupted": what is kept and how to resume."""
    if Signals.active is not None:
        Signals.active.advice = advice


def incomplete(directory: Path) -> str:
    """Return the advice while a result is being written."""
    return f"{directory} is incomplete; run the same command again"


def install_again() -> None:
    """Take the signals back from a library that has installed handlers of its own."""
    if Signals.active is not None:
        Signals.active.install()


def _write_line(message: str) -> None:
    """Write to standard error without the locks of its buffers, which the main thread may hold."""
    cursor = SHOW_CURSOR if os.isatty(2) else ""
    os.write(2, f"{cursor}jaxtrace: {message}\n".encode(errors="replace"))
