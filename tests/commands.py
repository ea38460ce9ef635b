"""The command line, called in this process."""

import io
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

from jaxtrace.cli.app import run


def run_command(*arguments):
    """Run `jaxtrace ARGUMENTS`; return its status, out and err. Raise an error that a user would see as a traceback."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            run([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code or 0
    return SimpleNamespace(status=status, out=out.getvalue(), err=err.getvalue())
