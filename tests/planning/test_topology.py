"""Slices by name, and their devices from libtpu."""

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
def test_libtpu_knows_the_listed_slices(chip):
    for chips in chip.shapes:
        devices = find_topology(f"{chip.name}-{chips}").devices()
        assert len(devices) == chips * chip.devices
        assert len({(*device.coords, device.core_on_chip) for device in devices}) == len(devices)
        assert len({tuple(device.coords) for device in devices}) == chips


@needs_libtpu
@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_usable_memory_is_the_compiler_s_limit(chip):
    topology = find_topology(f"{chip.name}-1")
    sharding = SingleDeviceSharding(topology.devices()[0])

    def fits(size):
        x = jax.ShapeDtypeStruct((size // 4,), jnp.float32, sharding=sharding)
        return compile_program(jax.jit(lambda x: x[0]).lower(x)).text is not None

    assert fits(topology.usable - GIB // 16)
    assert not fits(topology.usable + GIB // 16)


def test_larger_slices_have_the_same_chips():
    assert [topology.name for topology in larger(find_topology("v5p-64"))] == ["v5p-128", "v5p-256"]
    assert [topology.name for topology in larger(find_topology("cpu-2"))] == []


@pytest.mark.parametrize("name", ["v5e-3", "v9-8", "v5e", "cpu", "cpu-0", "7x-8x", "v5e-016", ""])
def test_unknown_slice_is_refused_with_the_known_names(name):
    with pytest.raises(
        ConfigError, match=f"{name!r}: .* v4, v5e, v5p, v6e, 7x with -1, -4, -8, .*, and cpu-1 to cpu-1024"
    ):
        find_topology(name)
    assert {tuple(chip.shapes) for chip in CHIPS} == {
        tuple(CHIPS[0].shapes)
    }  # the message lists the sizes of one chip for all


def test_more_cpus_than_this_process_has_are_refused():
    devices = len(jax.devices("cpu"))
    assert len(find_topology("cpu-1").devices()) == 1
    with pytest.raises(ConfigError, match=f"--xla_force_host_platform_device_count={devices + 1}"):
        find_topology(f"cpu-{devices + 1}").devices()
