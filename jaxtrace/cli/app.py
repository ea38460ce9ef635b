"""The one app, and what its verbs have in common."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer
from jax.errors import JaxRuntimeError
from rich.console import Console

from jaxtrace.errors import ConfigError, JaxtraceError
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
        except JaxRuntimeError as error:
            if not _of_several():
                raise
            reason = str(error).splitlines()[0][:200]
            fail(f"another process failed or is gone ({reason}); start all of them again (trace: with --resume)", 1)

    return run


def fail(message: str, status: int) -> None:
    errors.print(f"jaxtrace: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(status)


Option = functools.partial(typer.Option, show_default=False)

Distributed = Annotated[
    bool, Option("--distributed", help="One of several processes; TPU pods, SLURM, Kubernetes and MPI are recognised.")
]
Coordinator = Annotated[str | None, Option(help="HOST:PORT of process 0, where no cluster is recognised.")]
Processes = Annotated[int | None, Option(help="How many processes there are; with --coordinator.")]
Process = Annotated[int | None, Option(help="Which one this is, from 0; with --coordinator.")]


def join(distributed: bool, coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the other processes if there are to be some; all but the first then print nothing but errors."""
    if distributed or coordinator is not None:
        from jaxtrace.parallel import processes as several

        several.join(coordinator, processes, process)
        console.quiet = not several.leading()
    elif processes is not None or process is not None:
        raise ConfigError("--processes and --process: of whom? name process 0's --coordinator HOST:PORT too")


def main() -> None:
    """Entry point of the `jaxtrace` command."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # its tokenizers need no PyTorch
    try:
        app(prog_name="jaxtrace")
    except BaseException as error:
        status = error.code if isinstance(error, SystemExit) else 1
        if not status or not _of_several():
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(int(status))  # JAX would wait for the others, which wait for this one


def _of_several() -> bool:
    from jaxtrace.parallel.processes import of_several

    return of_several() is not None
