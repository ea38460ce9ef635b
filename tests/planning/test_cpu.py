"""A plan for eight CPU devices, in a new process."""

import json
import os
import subprocess
import sys

import pytest

from jaxtrace.checkpoints.embedded import demo_path
from jaxtrace.checkpoints.huggingface import read_config
from jaxtrace.planning.cost import parameter_count
from tests.compiler_flags import FLAGS


@pytest.fixture(scope="module")
def planned():
    environment = os.environ | {"XLA_FLAGS": FLAGS}
    command = [sys.executable, "-m", "tests.planning.eight_devices"]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def test_plan_for_eight_cpu_devices_shares_weights_and_caches(planned):
    config = read_config(demo_path(), "demo")[1]
    assert planned["devices here"] == planned["devices"] == 8
    assert planned["fits"] and planned["dtype"] == "float32" and planned["mesh"] == "data=4,model=2"
    decode, prefill = planned["decode"], planned["prefill"]
    assert (
        2 * parameter_count(config) < decode["weights"] < 2.1 * parameter_count(config)
    )  # matrices are halved, norms are not
    assert (
        0
        <= decode["state"] - config.kv_bytes(2 * 64) // 2 - 2 * 4 * (config.num_layers + 1) * config.embed_dim
        < 2 * 40
    )
    assert decode["collectives"]["all-reduce"]["count"] >= 2 * config.num_layers
    assert prefill["kernels"] == decode["kernels"] == []
    assert decode["bandwidth_seconds"] is decode["compute_seconds"] is None
    assert decode["total"] == sum(decode[part] for part in ("weights", "state", "traces", "temporaries"))


def test_scan_on_cpus_counts_every_iteration(planned):
    assert planned["scan"] == [3, 3 * 4 * 16]
