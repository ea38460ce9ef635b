"""A plan for CPU devices, in a process that begins with them."""

import json
import os
import subprocess
import sys

import pytest

from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.huggingface import read_config
from jaxtrace.planning.cost import parameter_count


@pytest.fixture(scope="module")
def found():
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "tests.planning.eight_devices"]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def test_eight_devices(found):
    _, config = read_config(demo_path(), "demo")
    assert found["devices here"] == found["devices"] == 8
    assert found["fits"] and found["dtype"] == "float32" and found["mesh"] == "data=4,model=2"
    decode, prefill = found["decode"], found["prefill"]
    assert 2 * parameter_count(config) < decode["weights"] < 2.1 * parameter_count(config)  # halves, and whole norms
    assert 0 <= decode["state"] - config.kv_bytes(2 * 64) // 2 - 2 * 4 * (config.layers + 1) * config.embed < 2 * 40
    assert decode["collectives"]["all-reduce"]["count"] >= 2 * config.layers
    assert prefill["kernels"] == decode["kernels"] == []
    assert decode["bandwidth_seconds"] is decode["compute_seconds"] is None
    assert decode["total"] == sum(decode[part] for part in ("weights", "state", "traces", "temporaries"))


def test_a_scan_on_cpus_counts_every_round(found):
    assert found["scan"] == [3, 3 * 4 * 16]
