"""Searches for a run that fits, with a stand-in for the compiler."""

import dataclasses

import pytest

from jaxtrace import Probes
from jaxtrace.planning import search
from jaxtrace.planning.plan import Plan, Program, Request
from jaxtrace.planning.topology import find_topology
from jaxtrace.planning.work import Work
from tests.engine.conftest import CONFIG

pytest.importorskip("libtpu", reason="libtpu is not installed: no compiler for TPUs")

EVEN = dataclasses.replace(CONFIG, num_heads=8, kv_heads=8, feed_forward=64)


def plan_of(request, fits, data=1):
    size = request.topology.usable + (0 if fits else 1)
    program = Program(size, 0, 0, 0, fits, {}, (), Work(0, 0, 0, 1, 0))
    return Plan(request, {"data": data, "model": 4 // data}, program, program, 1, 1)


@pytest.fixture
def compiler(monkeypatch):
    """Install a function of the request that decides what fits; return the list of planned requests."""

    def install(fits):
        requests = []

        def planned(request):
            requests.append((request.topology.name, request.batch))
            return plan_of(request, fits(request))

        monkeypatch.setattr(search, "planned", planned)
        return requests

    return install


def request(batch=16, config=EVEN):
    return Request("tiny", config, find_topology("v5e-4"), None, "bfloat16", batch, 16, Probes.of("output"))


def test_smallest_topology_tries_larger_slices_in_order(compiler):
    planned = compiler(lambda request: request.topology.chips >= 16)
    tried = []
    fitting = search.smallest_topology(plan_of(request(), False), lambda request: tried.append(request.topology.name))
    assert fitting is not None and fitting.request.topology.name == "v5e-16"
    assert planned == [("v5e-8", 16), ("v5e-16", 16)] and tried == ["v5e-8", "v5e-16"]


def test_smallest_topology_is_none_if_no_slice_fits(compiler):
    compiler(lambda request: False)
    assert search.smallest_topology(plan_of(request(), False)) is None


@pytest.mark.parametrize("most", range(16))
@pytest.mark.parametrize("data", [1, 2])
def test_largest_batch_is_the_largest_multiple_that_fits(compiler, most, data):
    planned = compiler(lambda request: request.batch <= most)
    fitting = search.largest_batch(plan_of(request(), False, data))
    assert (0 if fitting is None else fitting.request.batch) == most // data * data
    assert len(planned) <= 4 and all(batch % data == 0 and batch < 16 for _, batch in planned)


def test_slices_too_small_for_weights_and_caches_are_not_compiled(compiler):
    planned = compiler(lambda request: True)
    huge = dataclasses.replace(
        EVEN, vocab_size=2**26, embed_dim=256
    )  # 32 GiB each for the embedding and the unembedding
    fitting = search.smallest_topology(plan_of(request(config=huge), False))
    assert fitting is not None and planned == [("v5e-8", 16)]
    assert search.largest_batch(plan_of(request(config=huge), False)) is None and len(planned) == 1
