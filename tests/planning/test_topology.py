"""Slices by their names, and their devices as libtpu has them."""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from jaxtrace import ConfigError
from jaxtrace.planning.program import compile_program
from jaxtrace.planning.topology import CHIPS, GIB, find_topology, larger

needs_libtpu = pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu is not installed: no compiler for TPUs")


@needs_libtpu
@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_every_listed_slice_is_one_that_libtpu_knows(chip):
    for chips in chip.shapes:
        devices = find_topology(f"{chip.name}-{chips}").devices()
        assert len(devices) == chips * chip.devices
        assert len({(*device.coords, device.core_on_chip) for device in devices}) == len(devices)
        assert len({tuple(device.coords) for device in devices}) == chips


@needs_libtpu
@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_what_programs_may_have_of_the_memory(chip):
    topology = find_topology(f"{chip.name}-1")
    where = SingleDeviceSharding(topology.devices()[0])

    def fits(size):
        x = jax.ShapeDtypeStruct((size // 4,), jnp.float32, sharding=where)
        return compile_program(jax.jit(lambda x: x[0]).lower(x)).text is not None

    assert fits(topology.usable - GIB // 16)
    assert not fits(topology.usable + GIB // 16)


def test_larger_slices():
    assert [topology.name for topology in larger(find_topology("v5p-64"))] == ["v5p-128", "v5p-256"]
    assert [topology.name for topology in larger(find_topology("cpu-2"))] == []


@pytest.mark.parametrize("name", ["v5e-3", "v9-8", "v5e", "cpu", "cpu-0", "7x-8x", "v5e-016", ""])
def test_no_such_slice(name):
    with pytest.raises(ConfigError, match=f"{name!r}: .* v4, v5e, v5p, v6e, 7x with -1, -4, -8, .*, and cpu-1, cpu-2"):
        find_topology(name)
    assert {tuple(chip.shapes) for chip in CHIPS} == {tuple(CHIPS[0].shapes)}  # one list of sizes serves them all


def test_more_cpus_than_this_process_has():
    there = len(jax.devices("cpu"))
    assert len(find_topology("cpu-1").devices()) == 1
    with pytest.raises(ConfigError, match=f"--xla_force_host_platform_device_count={there + 1}"):
        find_topology(f"cpu-{there + 1}").devices()
