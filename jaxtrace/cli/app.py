"""Entry point: finds the verb, and turns errors into one line and an exit status."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from jaxtrace.cli.options import Group, Member
from jaxtrace.cli.output import errors, fail, say
from jaxtrace.cli.signals import INTERRUPTED, Signals
from jaxtrace.errors import JaxtraceError, first_line, one_line, os_error_line
from jaxtrace.memory import memory_errors

# Verbs in the order of `--help`, and the modules of those that do not have the verb's name.
VERBS = ("trace", "sweep", "plan", "report", "models", "info", "grade", "estimate", "tuned-lens", "convert")
MODULES = {"report": "show", "models": "show", "info": "show", "tuned-lens": "tuned_lens"}


def _member(module: str, name: str) -> Member:
    return lambda: getattr(import_module(f"jaxtrace.cli.{module}"), name)


def _studies() -> Mapping[str, Member]:
    from jaxtrace.cli.study import study_command
    from jaxtrace.studies.registry import known_studies

    return {name: functools.partial(study_command, study) for name, study in known_studies().items()}


STUDY = Group("study", "Analyse stored traces: one study each, with tables, pictures and a page.", _studies)
CONFIDENCE = Group(
    "confidence",
    "Learn from traces how likely an answer is right, and apply it.",
    lambda: {name: _member("confidence", f"{name}_confidence") for name in ("train", "apply")},
)
LAB = Group("lab", "Train small models of a world whose truth is known.", lambda: {"train": _member("lab", "train")})
APP = Group(
    "",
    "A language model's own uncertainty: entropy and varentropy of every step, head and layer.",
    lambda: {
        **{verb: _member(MODULES.get(verb, verb), verb.replace("-", "_")) for verb in VERBS},
        **{group.name: lambda group=group: group for group in (STUDY, CONFIDENCE, LAB)},
    },
)


def run(words: Sequence[str]) -> None:
    """Execute a command line; a user-fixable error becomes one line and exit status 2; see `Signals` for interrupts."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # its tokenizers need no PyTorch
    try:
        with Signals(), warnings.catch_warnings(), _shown_notes(), memory_errors(lambda x: _memory_line(words, x)):
            warnings.showwarning = _show_warning
            APP.execute(words)
            sys.stdout.flush()
    except (JaxtraceError, *_loaded("jaxtrace.kernels", "Unsupported")) as error:
        fail(str(error), 2)
    except BrokenPipeError:
        raise  # the reader of standard output has stopped reading; `main` ends quietly
    except OSError as error:
        fail(os_error_line(error), 2)
    except _loaded("jax.errors", "JaxRuntimeError") as error:
        if not _has_other_processes():
            raise
        fail(
            f"another process failed or ended ({first_line(error)}); start all processes again (trace: with --resume)",
            1,
        )


def main() -> None:
    """Entry point of the `jaxtrace` command."""
    try:
        run(sys.argv[1:])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes standard output once more
        sys.exit(1)
    except BaseException as error:
        status = error.code if isinstance(error, SystemExit) else 1
        interrupted = isinstance(status, int) and status > INTERRUPTED
        if not status or not (interrupted or _has_other_processes() or _is_compiling()):
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        # Python would wait for its threads, and JAX for the other processes, which wait for this one.
        os._exit(int(status))
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a traceback from Python's clean-up would help nobody


def _memory_line(words: Sequence[str], asked: str) -> str:
    """Return the line of a command that ran out of memory where the library says no more."""
    verb = " ".join(itertools.takewhile(lambda word: word.isalpha(), words[:2]))
    return f"{verb}: out of memory{asked}; run fewer rows at once, give less data, or use a machine with more memory"


def _loaded(module: str, name: str) -> tuple[type[BaseException], ...]:
    """Return an error class of a module if the module is loaded; otherwise the error cannot have been raised."""
    return (getattr(sys.modules[module], name),) if module in sys.modules else ()


def _has_other_processes() -> bool:
    processes = sys.modules.get("jaxtrace.parallel.processes")
    return processes is not None and processes.process_number() is not None


def _is_compiling() -> bool:
    compilation = sys.modules.get("jaxtrace.compilation")
    return compilation is not None and compilation.is_compiling()


def _show_warning(message: Warning | str, *_: Any) -> None:
    say(f"jaxtrace: {one_line(' '.join(str(message).split()))}", "yellow", errors)


class _Notes(logging.Handler):
    """Prints what the library logs, such as notes on a checkpoint."""

    def emit(self, record: logging.LogRecord) -> None:
        _show_warning(record.getMessage())


@contextmanager
def _shown_notes() -> Iterator[None]:
    logger, notes = logging.getLogger("jaxtrace"), _Notes()
    logger.addHandler(notes)
    try:
        yield
    finally:
        logger.removeHandler(notes)
