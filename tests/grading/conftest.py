import pytest


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Keep requests to the test's server, which is on this machine, away from a proxy."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
