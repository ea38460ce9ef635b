from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from jaxtrace.cli import app


@pytest.fixture(scope="session")
def jaxtrace():
    """Calls the command line in this process: jaxtrace("trace", "demo", …) → status, out, err."""

    def call(*arguments):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception  # a user would see a traceback
        return SimpleNamespace(status=done.exit_code, out=done.stdout, err=done.stderr)

    return call


@pytest.fixture
def no_plots(monkeypatch):
    """Runs leave the pictures out, which take longer than the traces here."""
    monkeypatch.setattr("jaxtrace.figures.write_plots", lambda *_: [])
