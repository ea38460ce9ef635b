"""A hint on the lens: once, on a CPU, for default probes that cost several times the plain step."""

import dataclasses

import jax.numpy as jnp
import pytest

from jaxtrace import Probes
from jaxtrace.engine import hints
from jaxtrace.models.published import find_published

LARGE = find_published("smollm2").config
PARAMS = {"embedding": jnp.zeros((1, 1))}


@pytest.fixture
def lines(caplog):
    """Return a function that gives the lines logged for a choice of probes and a number of rows."""
    hints.LOGGED.clear()
    yield lambda probes, rows, config=LARGE: (hints.hint_at_lens(config, PARAMS, probes, rows), caplog.messages)[1]
    hints.LOGGED.clear()


def test_an_expensive_lens_gets_one_hint(lines):
    (line,) = lines(Probes.all(), 16)
    assert "of all 30 layers" in line and "--lens-stride" in line and "6.1 times" in line
    assert lines(Probes.all(), 32) == [line]


@pytest.mark.parametrize(
    ("probes", "rows", "config"),
    [
        (Probes.all(), 1, LARGE),
        (Probes(lens_stride=2), 16, LARGE),
        (Probes(lens_every=2), 16, LARGE),
        (Probes.of("output"), 16, LARGE),
        (Probes.all(), 16, dataclasses.replace(LARGE, vocab_size=64)),
        (Probes.all(), 16, dataclasses.replace(LARGE, num_layers=3)),
    ],
)
def test_a_cheap_or_chosen_lens_gets_none(lines, probes, rows, config):
    assert lines(probes, rows, config) == []
