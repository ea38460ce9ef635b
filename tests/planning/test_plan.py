"""Plans of published models, compiled for slices of TPUs without the hardware."""

import dataclasses
import math

import jax
import pytest

from jaxtrace import Probes
from jaxtrace.engine.buckets import CHUNK_WIDTHS
from jaxtrace.models.cache import cache_bytes
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.published import find_published
from jaxtrace.parallel.mesh import make_mesh
from jaxtrace.parallel.sharding import param_shardings
from jaxtrace.planning.cost import parameter_count, trace_bytes
from jaxtrace.planning.hlo import kernels
from jaxtrace.planning.plan import Request, plan
from jaxtrace.planning.program import compile_program, shard_bytes
from jaxtrace.planning.topology import find_topology

pytest.importorskip("libtpu", reason="libtpu is not installed: no compiler for TPUs")

GIB = 2**30
CHUNK, SLOTS = 16, 64  # few positions, which compile fast; positions of the smallest cache


def checked(planned):
    """Assert what holds for every plan that fits, and return the plan."""
    assert planned.fits
    for program in (planned.decode, planned.prefill):
        assert program.temporaries >= 0
        assert program.total == program.weights + program.state + program.traces + program.temporaries
    assert planned.headroom == planned.request.topology.usable - max(planned.decode.total, planned.prefill.total)
    assert "decode_attention" in planned.decode.kernels and "prefill_attention" in planned.prefill.kernels
    return planned


def weights(config, mesh, topology):
    """Return the bytes of the bfloat16 parameters' shards on the first chip."""
    shapes = abstract_params(config)
    shardings = param_shardings(config, make_mesh(mesh, find_topology(topology).devices()))

    def on_the_first(x, sharding):
        index = next(iter(sharding.devices_indices_map(x.shape).values()))
        return math.prod(len(range(*part.indices(size))) for part, size in zip(index, x.shape, strict=True))

    return 2 * sum(jax.tree.leaves(jax.tree.map(on_the_first, shapes, shardings)))


def test_1b_on_one_chip_has_its_weights_caches_and_buffers():
    probes = Probes.of("output", "attention")
    planned = checked(plan("llama-3.2-1b", "v5e-1", batch=4, context=CHUNK, probes=probes))
    config = planned.request.config
    assert planned.mesh == {"data": 1, "model": 1}
    assert planned.decode.weights == planned.prefill.weights == 2 * parameter_count(config)
    assert 0 < planned.decode.state - config.kv_bytes(4 * SLOTS, 2) < 4 * 40
    assert (planned.prefill_rows, planned.prefill_positions) == (1, CHUNK)
    assert 0 < planned.prefill.state - planned.decode.state - config.kv_bytes(SLOTS, 2) < 40
    metrics = sum(trace_bytes(config, probes).values())
    assert 1 <= planned.decode.traces / (2 * 16 * 4 * metrics) < 5  # two calls of sixteen steps, 32 heads padded to 128
    assert planned.decode.collectives == planned.prefill.collectives == {}


@pytest.mark.parametrize(
    ("chip", "usable"),
    [
        pytest.param("v4", 30.75, marks=pytest.mark.nightly),
        pytest.param("v5p", 95.74, marks=pytest.mark.nightly),
        ("v6e", 31.25),
        ("7x", 94.75),
    ],
)
def test_1b_decodes_on_one_chip_of_every_generation(chip, usable):
    topology = find_topology(f"{chip}-1")
    config = find_published("llama-3.2-1b").config
    job = Request("1b", config, topology, None, "bfloat16", 2, CHUNK, Probes.of("output")).job()
    assert job.mesh.size == topology.chip.devices
    compiled = compile_program(job.lowered_decode())
    assert compiled.text is not None and "decode_attention" in kernels(compiled.text)
    assert 2 * parameter_count(config) < compiled.needed < topology.usable == int(usable * GIB)


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "context"), [("llama-3.2-1b", 4096), ("gemma-3-1b", 16_384)])
def test_stacked_decode_holds_its_cache_once_and_only_what_windows_need(name, context):
    config = dataclasses.replace(find_published(name).config, vocab_size=1024, feed_forward=512)
    request = Request(name, config, find_topology("v5e-1"), None, "bfloat16", 8, context, Probes.none())
    job = request.job()
    cache = cache_bytes(config, 8, context, 2, CHUNK_WIDTHS[-1])
    assert request.window_slots == (None if name == "llama-3.2-1b" else 512 + 256)
    assert 0 < shard_bytes(job.state(8)) - cache < 4096
    assert compile_program(job.lowered_decode()).needed < shard_bytes(job.params) + 1.4 * cache


def check_shared(planned, mesh):
    """Assert that a model is split over all chips: two sums a layer, no gather of logits, scores or keys."""
    config, batch = checked(planned).request.config, planned.request.batch
    assert planned.mesh == mesh
    text = ",".join(f"{axis}={size}" for axis, size in mesh.items())
    assert planned.decode.weights == weights(config, text, planned.request.topology.name)
    for program, positions in ((planned.decode, batch), (planned.prefill, planned.prefill_rows * CHUNK)):
        sums = program.collectives["all-reduce"]
        rows = positions // mesh["data"]
        assert sums.count >= 2 * config.num_layers
        assert sums.bytes >= 2 * config.num_layers * rows * config.embed_dim * 2
        gathered = program.collectives.get("all-gather")
        assert gathered is None or gathered.bytes < rows * config.vocab_size


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma-2-9b", pytest.param("qwen3-8b", marks=pytest.mark.nightly)])
def test_8b_and_9b_are_split_over_four_chips(name):
    planned = plan(name, "v5e-4", batch=8, context=CHUNK, probes=Probes.of("output"))
    check_shared(planned, {"data": 2, "model": 2})


@pytest.mark.nightly
def test_70b_is_split_over_sixteen_chips():
    planned = plan("llama-3.1-70b", "v5e-16", batch=4, context=CHUNK, probes=Probes.of("output", "attention"))
    check_shared(planned, {"data": 1, "model": 16})


@pytest.mark.nightly
def test_90b_is_split_over_sixteen_small_chips_with_its_images_keys():
    planned = plan("llama-3.2-90b", "v5e-16", batch=8, context=CHUNK, probes=Probes.of("output"))
    check_shared(planned, {"data": 1, "model": 16})
    config = planned.request.config
    image_layers = sum(kind.cross_attention for kind in config.kinds)
    keys = config.vision.max_tiles * config.vision.patches
    # Each chip holds one of the eight key heads, for eight rows of text and an image each.
    entries = 2 * config.head_dim * 8 * ((config.num_layers - image_layers) * SLOTS + image_layers * keys)
    assert 0 < planned.decode.state - 2 * entries < 8 * 64


@pytest.mark.nightly
def test_90b_is_split_over_eight_large_chips():
    planned = plan("llama-3.2-90b", "v5p-8", batch=8, context=CHUNK, probes=Probes.of("output"))
    check_shared(planned, {"data": 2, "model": 4})


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "parts"), [("qwen3-30b-a3b", 16), ("gpt-oss-20b", 16), ("gemma-4-26b-a4b", 8)])
def test_experts_are_split_over_sixteen_chips_and_only_those_in_use_are_read(name, parts):
    """The compiler copies an unembedding whose width 128 does not divide, but no layer's experts."""
    data = 16 // parts
    probes = Probes.of("output")
    planned = plan(name, "v5e-16", batch=8, context=CHUNK, probes=probes, mesh=f"data={data},model={parts}")
    check_shared(planned, {"data": data, "model": parts})
    config = planned.request.config
    experts, unembedding = config.experts, 2 * config.vocab_size * config.embed_dim // parts
    layer = 2 * experts.number // parts * 3 * experts.feed_forward * config.embed_dim
    for program, positions in ((planned.decode, 8), (planned.prefill, planned.prefill_rows * CHUNK)):
        in_use = 1 - (1 - experts.chosen / experts.number) ** (positions // data)
        unread = sum(not kind.dense for kind in config.kinds) * layer * (1 - in_use)
        tables = (not config.tied) + (program is planned.prefill)  # not read, or a few rows
        whole = program.weights - tables * unembedding
        assert program.work.weights == pytest.approx(whole - unread, rel=0.01)  # without norms
        assert program.temporaries < layer + (2 * unembedding if config.embed_dim % 128 else 0)
