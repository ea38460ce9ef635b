"""The one app, and what its verbs have in common."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console

from jaxtrace.errors import JaxtraceError
from jaxtrace.kernels import Unsupported

app = typer.Typer(
    help="A language model's own uncertainty: entropy and varentropy of every step, head and layer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()
errors = Console(stderr=True)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Turns what a user can mend into one line and exit status 2, and Ctrl-C into 130."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except (JaxtraceError, Unsupported) as error:
            fail(str(error), 2)
        except BrokenPipeError:
            raise  # the reader of our output has enough; typer ends quietly
        except OSError as error:
            fail(f"{error.filename or 'a file'}: {error.strerror or error}; mend it, or name another place", 2)
        except KeyboardInterrupt:
            fail("interrupted", 130)

    return run


def fail(message: str, status: int) -> None:
    errors.print(f"jaxtrace: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(status)


Option = functools.partial(typer.Option, show_default=False)


def main() -> None:
    """Entry point of the `jaxtrace` command."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # its tokenizers need no PyTorch
    app(prog_name="jaxtrace")
