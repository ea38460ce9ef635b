"""Published models, compiled for slices of TPUs that are not there."""

import math

import jax
import pytest

from jaxtrace import Probes
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.published import find_published
from jaxtrace.parallel.mesh import make_mesh
from jaxtrace.parallel.sharding import param_shardings
from jaxtrace.planning.cost import parameter_count, trace_bytes
from jaxtrace.planning.hlo import kernels
from jaxtrace.planning.plan import Request, plan
from jaxtrace.planning.program import compile_program
from jaxtrace.planning.topology import find_topology

pytest.importorskip("libtpu", reason="libtpu is not installed: no compiler for TPUs")

GIB = 2**30
CHUNK, SLOTS = 16, 64  # positions, few, so that the compiler has little to do; and those of the smallest cache


def checked(found):
    """What holds for every plan that fits."""
    assert found.fits
    for program in (found.decode, found.prefill):
        assert program.temporaries >= 0
        assert program.total == program.weights + program.state + program.traces + program.temporaries
    assert found.headroom == found.request.topology.usable - max(found.decode.total, found.prefill.total)
    assert "decode_attention" in found.decode.kernels and "prefill_attention" in found.prefill.kernels
    return found


def weights(config, mesh, topology):
    """Bytes of the parameters on the first chip, in bfloat16, each cut as its sharding says."""
    shapes = abstract_params(config)
    where = param_shardings(config, make_mesh(mesh, find_topology(topology).devices()))

    def on_the_first(x, sharding):
        index = next(iter(sharding.devices_indices_map(x.shape).values()))
        return math.prod(len(range(*part.indices(size))) for part, size in zip(index, x.shape, strict=True))

    return 2 * sum(jax.tree.leaves(jax.tree.map(on_the_first, shapes, where)))


def test_1b_on_one_chip():
    probes = Probes.of("output", "attention")
    found = checked(plan("llama-3.2-1b", "v5e-1", batch=4, context=CHUNK, probes=probes))
    config = found.request.config
    assert found.mesh == {"data": 1, "model": 1}
    assert found.decode.weights == found.prefill.weights == 2 * parameter_count(config)
    assert 0 < found.decode.state - config.kv_bytes(4 * SLOTS, 2) < 4 * 40
    assert (found.prefill_rows, found.prefill_positions) == (1, CHUNK)
    assert 0 < found.prefill.state - found.decode.state - config.kv_bytes(SLOTS, 2) < 40
    metrics = sum(trace_bytes(config, probes).values())
    assert 1 <= found.decode.traces / (2 * 16 * 4 * metrics) < 5  # two calls of sixteen steps, 32 heads padded to 128
    assert found.decode.collectives == found.prefill.collectives == {}


@pytest.mark.parametrize(("chip", "usable"), [("v4", 30.75), ("v5p", 95.74), ("v6e", 31.25), ("7x", 94.75)])
def test_1b_decodes_on_one_chip(chip, usable):
    topology = find_topology(f"{chip}-1")
    config = find_published("llama-3.2-1b").config
    job = Request("1b", config, topology, None, "bfloat16", 2, CHUNK, Probes.of("output")).job()
    assert job.mesh.size == topology.chip.devices
    compiled = compile_program(job.lowered_decode())
    assert compiled.text is not None and "decode_attention" in kernels(compiled.text)
    assert 2 * parameter_count(config) < compiled.needed < topology.usable == int(usable * GIB)


def check_shared(found, mesh):
    """A model over all chips of a slice: two sums a layer, and no gather of logits, of scores or of keys."""
    config, batch = checked(found).request.config, found.request.batch
    assert found.mesh == mesh
    text = ",".join(f"{axis}={size}" for axis, size in mesh.items())
    assert found.decode.weights == weights(config, text, found.request.topology.name)
    for program, positions in ((found.decode, batch), (found.prefill, found.prefill_rows * CHUNK)):
        sums = program.collectives["all-reduce"]
        rows = positions // mesh["data"]
        assert sums.count >= 2 * config.layers
        assert sums.bytes >= 2 * config.layers * rows * config.embed * 2
        gathered = program.collectives.get("all-gather")
        assert gathered is None or gathered.bytes < rows * config.vocab


@pytest.mark.slow
def test_8b_and_9b_on_four_chips():
    for name in ("qwen3-8b", "gemma-2-9b"):
        found = plan(name, "v5e-4", batch=8, context=CHUNK, probes=Probes.of("output"))
        check_shared(found, {"data": 2, "model": 2})


@pytest.mark.slow
def test_70b_on_a_slice():
    found = plan("llama-3.1-70b", "v5e-16", batch=4, context=CHUNK, probes=Probes.of("output", "attention"))
    check_shared(found, {"data": 1, "model": 16})


@pytest.mark.slow
def test_90b_on_sixteen_small_chips():
    found = plan("llama-3.2-90b", "v5e-16", batch=8, context=CHUNK, probes=Probes.of("output"))
    check_shared(found, {"data": 1, "model": 16})
    config = found.request.config
    looking = sum(kind.cross_attention for kind in config.kinds)
    keys = config.vision.max_tiles * config.vision.patches
    # Of the eight heads of keys and values each chip has one, of eight rows, for the text and for an image each.
    entries = 2 * config.head_dim * 8 * ((config.layers - looking) * SLOTS + looking * keys)
    assert 0 < found.decode.state - 2 * entries < 8 * 64


@pytest.mark.slow
def test_90b_on_eight_large_chips():
    found = plan("llama-3.2-90b", "v5p-8", batch=8, context=CHUNK, probes=Probes.of("output"))
    check_shared(found, {"data": 2, "model": 4})
