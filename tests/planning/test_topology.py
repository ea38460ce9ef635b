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


def test_a_small_collective_takes_a_microsecond_for_each_hop_and_a_large_one_its_bytes():
    v5e, v7x = find_topology("v5e-16").chip, find_topology("7x-8").chip
    assert v5e.collective_seconds(1, 1e6) == 0
    assert v5e.collective_seconds(16, 1e3) == pytest.approx(4e-6)  # two hops along each side of 4
    assert v5e.collective_seconds(4, 45e6) == pytest.approx(5e-4)  # two links of 45 GB/s
    assert v7x.collective_seconds(16, 0) == pytest.approx(3e-6)  # two cores a chip, 2 x 2 x 2 chips
    assert v5e.collective_seconds(2, 45e6) == pytest.approx(1e-3)  # one link
    assert find_topology("cpu-8").chip.collective_seconds(8, 0) is None


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
