"""Entry point: finds the verb, and turns errors into one line and an exit status."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from jaxtrace.cli.options import Group, Member
from jaxtrace.cli.output import errors, fail, say
from jaxtrace.errors import JaxtraceError
from jaxtrace.memory import memory_errors

# Verbs in the order of `--help`, and the modules of those that do not have the verb's name.
VERBS = ("trace", "sweep", "plan", "report", "models", "info", "grade", "tuned-lens", "convert")
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
    """Execute a command line; a user-fixable error becomes one line and exit status 2, Ctrl-C becomes 130."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # its tokenizers need no PyTorch
    try:
        with warnings.catch_warnings(), _shown_notes(), memory_errors(lambda asked: _memory_line(words, asked)):
            warnings.showwarning = _show_warning
            APP.execute(words)
    except (JaxtraceError, *_loaded("jaxtrace.kernels", "Unsupported")) as error:
        fail(str(error), 2)
    except BrokenPipeError:
        raise  # the reader of standard output has stopped reading; `main` ends quietly
    except OSError as error:
        fail(f"{error.filename or 'a file'}: {error.strerror or error}; fix it, or name another place", 2)
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except _loaded("jax.errors", "JaxRuntimeError") as error:
        if not _has_other_processes():
            raise
        reason = str(error).splitlines()[0][:200]
        fail(f"another process failed or ended ({reason}); start all processes again (trace: with --resume)", 1)


def main() -> None:
    """Entry point of the `jaxtrace` command."""
    try:
        run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes standard output once more
        sys.exit(1)
    except BaseException as error:
        status = error.code if isinstance(error, SystemExit) else 1
        if not status or not _has_other_processes():
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(int(status))  # JAX would wait for the other processes, which wait for this one


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


def _show_warning(message: Warning | str, *_: Any) -> None:
    say(f"jaxtrace: {' '.join(str(message).split())}", "yellow", errors)


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
