"""What is found where a run does not fit, with a compiler that says at once what fits."""

import dataclasses

import pytest

from jaxtrace import Probes
from jaxtrace.planning import search
from jaxtrace.planning.plan import Plan, Program, Request
from jaxtrace.planning.topology import find_topology
from jaxtrace.planning.work import Work
from tests.engine.conftest import CONFIG

pytest.importorskip("libtpu", reason="libtpu is not installed: no compiler for TPUs")

EVEN = dataclasses.replace(CONFIG, heads=8, kv_heads=8, feed_forward=64)


def plan_of(request, fits, data=1):
    size = request.topology.usable + (0 if fits else 1)
    program = Program(size, 0, 0, 0, fits, {}, (), Work(0, 0, 0, 1, 0))
    return Plan(request, {"data": data, "model": 4 // data}, program, program, 1, 1)


@pytest.fixture
def compiler(monkeypatch):
    """Says what fits by a function of the request, and counts what it was asked."""

    def install(fits):
        asked = []

        def planned(request):
            asked.append((request.topology.name, request.batch))
            return plan_of(request, fits(request))

        monkeypatch.setattr(search, "planned", planned)
        return asked

    return install


def request(batch=16, config=EVEN):
    return Request("tiny", config, find_topology("v5e-4"), None, "bfloat16", batch, 16, Probes.of("output"))


def test_the_smallest_larger_slice(compiler):
    asked = compiler(lambda request: request.topology.chips >= 16)
    tried = []
    found = search.smallest_topology(plan_of(request(), False), lambda request: tried.append(request.topology.name))
    assert found is not None and found.request.topology.name == "v5e-16"
    assert asked == [("v5e-8", 16), ("v5e-16", 16)] and tried == ["v5e-8", "v5e-16"]


def test_no_slice_is_large_enough(compiler):
    compiler(lambda request: False)
    assert search.smallest_topology(plan_of(request(), False)) is None


@pytest.mark.parametrize("most", range(16))
@pytest.mark.parametrize("data", [1, 2])
def test_the_largest_batch(compiler, most, data):
    asked = compiler(lambda request: request.batch <= most)
    found = search.largest_batch(plan_of(request(), False, data))
    wanted = most // data * data
    assert (0 if found is None else found.request.batch) == wanted
    assert len(asked) <= 4 and all(batch % data == 0 and batch < 16 for _, batch in asked)


def test_what_weights_and_caches_fill_is_not_compiled(compiler):
    asked = compiler(lambda request: True)
    huge = dataclasses.replace(EVEN, vocab=2**26, embed=256)  # 32 GiB each for the embedding and the unembedding
    found = search.smallest_topology(plan_of(request(config=huge), False))
    assert found is not None and asked == [("v5e-8", 16)]
    assert search.largest_batch(plan_of(request(config=huge), False)) is None and len(asked) == 1
