"""Estimated times of a step, from rates by hand; and rates that are measured."""

import dataclasses
import math

import pytest

from jaxtrace import Probes
from jaxtrace.planning import machine, times
from jaxtrace.planning.cost import lens_flops, lens_rows, parameter_count, step_flops, trace_bytes
from jaxtrace.planning.times import Rates, step_seconds
from tests.engine.conftest import CONFIG

RATES = Rates(bandwidth=1e9, flops=1e10, moments=1e8, device="cpu")


def test_a_plain_step_takes_the_longer_of_its_bytes_and_its_products():
    plain = [step_seconds(CONFIG, Probes.none(), RATES, rows, 10) for rows in (1, 10_000)]
    assert [set(each) for each in plain] == [{"plain"}] * 2
    assert plain[0]["plain"] == pytest.approx((4 * parameter_count(CONFIG) + CONFIG.kv_bytes(10)) / 1e9)
    no_cache = dataclasses.replace(RATES, bandwidth=math.inf)
    assert step_seconds(CONFIG, Probes.none(), no_cache, 10_000, 10)["plain"] == pytest.approx(
        step_flops(CONFIG) * 1e-6
    )


def test_groups_cost_their_products_and_passes():
    seconds = step_seconds(CONFIG, Probes.all(), RATES, 3, 10)
    assert seconds.keys() == {"plain", "output", "attention", "dispersion", "lens", "hidden"}
    logits, scores = 37 / 1e8, 3 * 4 * 10 / 1e8
    assert seconds["output"] == pytest.approx(3 * logits) and seconds["attention"] == pytest.approx(3 * scores)
    assert seconds["lens"] == pytest.approx(3 * (lens_flops(CONFIG) / 1e10 + 2 * logits))


def test_a_lens_of_fewer_layers_or_steps_costs_less():
    for options, rows in [
        ({}, 2),
        ({"lens_stride": 2}, 1),
        ({"lens_layers": (3,)}, 0),
        ({"lens_renyi": True}, 5),
        ({"lens_every": 6}, 3 / 6),  # the output's row is unembedded again
        ({"lens_stride": 2, "lens_every": 4}, 2 / 4),
    ]:
        probes = Probes(**options)
        assert lens_rows(CONFIG, probes) == rows
        assert lens_flops(CONFIG, probes) == int(rows * 2 * 37 * 32)
    assert lens_rows(CONFIG, Probes.of("output")) == 0
    whole, fewer = trace_bytes(CONFIG, Probes()), trace_bytes(CONFIG, Probes(lens_layers=(3,), lens_every=4))
    assert fewer["lens"] == whole["lens"] / 12 and fewer["hidden"] == whole["hidden"]


def test_rates_are_measured(monkeypatch):
    for name, value in (("QUICK_ENTRIES", 1024), ("QUICK_SIZE", 16)):
        monkeypatch.setattr(times, name, value)
    monkeypatch.setattr(machine, "MOMENT_SHAPE", (2, 64))
    for measured in (machine.bandwidth, machine.product_rate, machine.moment_rate):
        measured.cache_clear()
    rates = Rates.measured()
    machine.moment_rate.cache_clear()
    assert min(rates.bandwidth, rates.flops, rates.moments) > 0
    assert "measured now on this machine" in str(rates)
