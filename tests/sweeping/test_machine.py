"""Rates of a machine for estimates of a sweep's time."""

import pytest

from jaxtrace.planning import machine
from jaxtrace.sweeping import Machine


@pytest.fixture
def small(monkeypatch):
    """Measure on small arrays."""
    monkeypatch.setattr(machine, "TRIAD_ENTRIES", 1 << 16)
    monkeypatch.setattr(machine, "MATMUL_SIZE", 64)
    rates = machine.bandwidth, machine.product_rate
    for rate in rates:
        rate.cache_clear()
    yield
    for rate in rates:
        rate.cache_clear()


def test_rates_that_are_not_given_are_measured(small):
    assert machine.bandwidth() > 0
    assert machine.product_rate("float32") > 0
    assert Machine.of(None, 0.5) == Machine(machine.bandwidth(), 0.5e12, "measured on this machine")
    assert Machine.of(10, None) == Machine(10e9, machine.product_rate("float32"), "measured on this machine")
