"""`jaxtrace plan`."""

import json

import pytest

pytest.importorskip("libtpu", reason="libtpu is not installed: no compiler for TPUs")

SMALL = ("--context", 16, "--probes", "output")


def test_a_plan_that_fits_exits_0(jaxtrace):
    done = jaxtrace("plan", "--model", "demo", "--topology", "v5e-1", "--batch", 2, *SMALL)
    assert done.status == 0
    for text in ("1,312,384 parameters in bfloat16", "1 v5e chip, 1x1; mesh data=1,model=1", "2 rows of 16 positions"):
        assert text in done.out
    rows = {line.split("  ")[0]: line.split()[-2:] for line in done.out.splitlines() if "  " in line.strip()}
    assert rows["weights"] == ["2.503", "MiB"]
    assert {"cache and state", "trace buffers", "temporaries", "in all", "headroom", "tokens per second"} <= {*rows}
    assert done.out.splitlines()[-1].startswith("fits: 15.7")


def test_a_plan_that_does_not_fit_exits_1_and_finds_one_that_does(jaxtrace):
    arguments = ("--model", "llama-3.1-8b", "--topology", "v5e-1", "--batch", 2, "--dtype", "float32", *SMALL)
    done = jaxtrace("plan", *arguments, "--search", "--json")
    assert done.status == 1
    found = json.loads(done.out)
    assert not found["fits"] and found["headroom"] < 0
    assert found["matmul_precision"] == "highest"
    weights = 4 * 8_030_261_248
    assert found["decode"]["weights"] == weights and not found["decode"]["compiled"]
    assert weights < found["decode"]["total"] < 1.5 * weights  # what the compiler says it would need
    assert found["usable"] == found["headroom"] + max(found[name]["total"] for name in ("decode", "prefill"))
    [other] = found["fitting"]
    assert other["fits"] and (other["topology"], other["batch"]) == ("v5e-4", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology", "v5e-3"), "topology 'v5e-3': is unknown; choose one of v4, v5e, v5p, v6e, 7x with -1, -4, -8"),
        (("--topology", "v5e-4", "--mesh", "data=1,model=3"), "has 3 devices, but v5e-4 has 4"),
        (("--topology", "v5e-16", "--mesh", "model=16"), "16 parts do not divide"),
        (("--topology", "v5e-4", "--mesh", "heads=4"), "not sizes of data and model"),
        (("--model", "gone"), "gone: no such directory"),
        (("--context", 100_000), "plan: context is 100000; demo has "),
        (("--batch", 0), "plan: batch is 0"),
        (("--dtype", "int8"), "dtype: is 'int8'; it must be one of bfloat16, float16, float32"),
        (("--probes", "all,lense"), "no probe group 'lense'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_wrong_options_are_refused(jaxtrace, arguments, message):
    done = jaxtrace("plan", *arguments)
    assert (done.status, done.out) == (2, "")
    assert message in done.err and done.err.count("\n") == 1
