"""The consoles of the command line, and the one line that an error becomes."""

from __future__ import annotations

from typing import NoReturn

from rich.console import Console

console = Console()
errors = Console(stderr=True)


def say(text: object, style: str | None = None, to: Console = console) -> None:
    """Print a line as it is, without wrapping or markup."""
    to.print(str(text), style=style, markup=False, highlight=False, soft_wrap=True)


def fail(message: str, status: int) -> NoReturn:
    """Print one line on standard error and end with an exit status."""
    say(f"jaxtrace: {message}", "red", errors)
    raise SystemExit(status)
