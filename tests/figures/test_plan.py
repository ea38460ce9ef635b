"""A plan as a table, for runs that fit and runs that do not; nothing is compiled."""

import dataclasses

import pytest
from rich.console import Console

from jaxtrace import Probes
from jaxtrace.figures.tables.plan import fitting_line, plan_table
from jaxtrace.planning.hlo import Collective
from jaxtrace.planning.plan import Plan, Program, Request
from jaxtrace.planning.topology import find_topology
from jaxtrace.planning.work import Work
from tests.engine.conftest import CONFIG

GIB, MIB = 2**30, 2**20
WORK = Work(weights=8 * GIB, cache=2 * GIB, tracing=GIB, flops=4 * 10**9, tracing_flops=10**9)
DECODE = Program(8 * GIB, 2 * GIB, 3 * MIB, GIB, True, {"all-reduce": Collective(4, 8 * MIB)}, (), WORK)
PREFILL = Program(8 * GIB, 3 * GIB, 3 * MIB, 2 * GIB, True, {}, (), dataclasses.replace(WORK, tracing_flops=0))


@pytest.fixture
def written():
    def text(renderable):
        console = Console(width=100)
        with console.capture() as capture:
            console.print(renderable)
        return capture.get()

    return text


def plan(topology="v5e-4", prefill=PREFILL):
    request = Request("tiny", CONFIG, find_topology(topology), None, "bfloat16", 8, 512, Probes.of("output", "lens"))
    return Plan(request, {"data": 2, "model": 2}, DECODE, prefill, 2, 256)


def test_table_of_a_plan_that_fits(written):
    text = written(plan_table(plan()))
    rows = {line.split("  ")[0].strip(): line.split("  ", 1)[1].split() for line in text.splitlines() if "  " in line}
    assert rows["topology"] == ["4", "v5e", "chips,", "2x2;", "mesh", "data=2,model=2"]
    assert rows["weights"] == ["8", "GiB", "8", "GiB"]
    assert rows["in all"] == ["11", "GiB", "13", "GiB"]
    assert rows["headroom"] == ["4.747", "GiB", "2.747", "GiB"]
    assert rows["collectives"] == ["none"]
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "all-reduce 4 × 2 MiB –" in lines
    assert (
        "of tracing 1 GiB (+10.0%) 1 GiB (+10.0%)" in lines and "of tracing 1 GFLOP (+25.0%) 0 GFLOP (+0.0%)" in lines
    )
    assert rows["time for the bytes"][:2] == ["14.4", "ms"]  # 11 GiB at 819 GB/s
    assert rows["time for the collectives"] == ["0.186", "ms", "–"]  # four of 2 MiB over one link of 45 GB/s
    assert rows["tokens per second"][:3] == ["at", "most", "548"]  # 8 rows in the 14.6 ms of both
    assert text.splitlines()[-1] == "fits: 2.747 GiB of 15.75 GiB stay free on each chip"
    assert written(fitting_line(plan())) == "8 rows on v5e-4 (data=2,model=2): 2.747 GiB of 15.75 GiB stay free\n"


def test_table_of_a_plan_that_does_not_fit(written):
    text = written(plan_table(plan(prefill=dataclasses.replace(PREFILL, temporaries=8 * GIB, compiled=False))))
    assert text.splitlines()[-1] == "does not fit: prefill needs 3.253 GiB more than the 15.75 GiB of each chip"
    assert "−3.253 GiB" in text


def test_chips_with_two_cores_are_planned_per_core(written):
    text = written(plan_table(plan("7x-1")))
    assert "1 7x chip, 1x1x1, 2 cores; mesh" in text and "on each core" in text
    assert text.splitlines()[-1] == "fits: 81.75 GiB of 94.75 GiB stay free on each core"


def test_cpus_have_no_times(written):
    text = written(plan_table(plan("cpu-1")))
    assert "1 CPU device of this process" in text and "time for" not in text and "tokens per second" not in text


def test_operations_of_float32_take_six_passes_on_a_tpu():
    found = plan()
    float32 = dataclasses.replace(found, request=dataclasses.replace(found.request, dtype="float32"))
    _, one_pass = found.seconds(WORK)
    for precision, passes in (("default", 1), ("high", 3), ("highest", 6)):
        assert dataclasses.replace(float32, precision=precision).seconds(WORK)[1] == pytest.approx(passes * one_pass)
