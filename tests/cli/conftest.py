import pytest

from tests.commands import run_command


@pytest.fixture(scope="session")
def jaxtrace():
    """Calls the command line in this process: jaxtrace("trace", "demo", …) → status, out, err."""
    return run_command


@pytest.fixture
def no_plots(monkeypatch):
    """Runs write no plots, which take longer than the traces here."""
    monkeypatch.setattr("jaxtrace.figures.write_plots", lambda *_: [])
