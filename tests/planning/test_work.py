"""Work of a step, compared with counts by hand and with the cost of a whole model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from jaxtrace import Probes
from jaxtrace.models.config import LayerKind
from jaxtrace.planning.cost import lens_flops, parameter_count, step_flops, trace_bytes
from jaxtrace.planning.program import Job, shard_bytes
from jaxtrace.planning.topology import find_topology
from jaxtrace.planning.work import decode_work, prefill_work
from tests.engine.conftest import CONFIG
from tests.engine.test_hybrid import HYBRID
from tests.engine.test_images import WITH_IMAGES

pytest.importorskip("libtpu", reason="libtpu is not installed: no compiler for TPUs")

ROWS, CONTEXT = 8, 64
EVEN = dataclasses.replace(
    CONFIG, num_layers=5, num_heads=4, kv_heads=2, vocab_size=64, feed_forward=64, context=CONTEXT
)
_LOCAL, _FULL = LayerKind(window=16), LayerKind()
_SOURCES = (None, None, None, 2, 1)
SHARING = dataclasses.replace(
    EVEN,
    layer_input=8,
    layer_input_vocab=64,
    pattern=tuple(
        dataclasses.replace(kind, kv_source=source)
        for kind, source in zip((_LOCAL, _FULL, _LOCAL, _LOCAL, _FULL), _SOURCES, strict=True)
    ),
)
ALONE = dataclasses.replace(
    SHARING, pattern=tuple(dataclasses.replace(kind, kv_source=None) for kind in SHARING.pattern)
)
RECURRENT = dataclasses.replace(HYBRID, vocab_size=64, feed_forward=64, context=CONTEXT)
WINDOWED = dataclasses.replace(EVEN, pattern=(LayerKind(window=16), LayerKind()))


def job(config, probes=None, *, data=1, model=1, platform="tpu", rows=ROWS):
    devices = np.array(find_topology("v5e-8").devices()[: data * model]).reshape(data, model)
    mesh = Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    return Job.of(config, mesh, platform, rows, CONTEXT, probes or Probes.all(), jnp.bfloat16)


def attention_flops(config, slots):
    """Return the flops of scores and of sums of values, over the slots that one token attends to in all layers."""
    return 2 * 2 * config.num_heads * config.head_dim * slots


@pytest.mark.parametrize("platform", ["tpu", "cpu"], ids=["stacked", "unrolled"])
def test_decode_on_one_device_equals_the_model_s_cost(platform):
    found = decode_work(job(EVEN, platform=platform))
    assert found.cache == EVEN.kv_bytes(ROWS * CONTEXT, 2)
    assert found.flops == ROWS * (step_flops(EVEN) + 5 * attention_flops(EVEN, CONTEXT))
    assert found.tracing_flops == ROWS * (lens_flops(EVEN) + 5 * attention_flops(EVEN, CONTEXT) // 2)
    norms, embedding = (2 * 5 + 1) * EVEN.embed_dim, 0 if EVEN.tied else EVEN.vocab_size * EVEN.embed_dim
    assert found.weights == 2 * (parameter_count(EVEN) - norms - embedding)


def test_no_probes_add_no_work():
    plain, traced = decode_work(job(EVEN, Probes.none())), decode_work(job(EVEN))
    assert plain.tracing == plain.tracing_flops == 0
    assert (plain.weights, plain.cache, plain.flops) == (traced.weights, traced.cache, traced.flops)


@pytest.mark.parametrize("group", ["output", "attention"])
def test_metrics_of_sums_add_only_their_own_bytes(group):
    probes = Probes.of(group)
    found = decode_work(job(EVEN, probes))
    assert (found.tracing, found.tracing_flops) == (ROWS * trace_bytes(EVEN, probes)[group], 0)


def test_dispersion_reads_the_keys_again():
    found = decode_work(job(EVEN, Probes.of("dispersion")))
    assert found.tracing == EVEN.kv_bytes(ROWS * CONTEXT, 2) // 2 + ROWS * trace_bytes(EVEN, Probes.all())["dispersion"]


def test_layers_with_windows_read_fewer_keys():
    found = decode_work(job(WINDOWED))
    slots = 3 * 16 + 2 * CONTEXT  # of five layers, three have windows
    assert found.cache == EVEN.kv_bytes(ROWS * slots, 2) // 5
    assert found.flops == ROWS * (step_flops(EVEN) + attention_flops(EVEN, slots))


def test_mesh_divides_the_work():
    one, shared = decode_work(job(EVEN, Probes.none())), decode_work(job(EVEN, Probes.none(), data=4, model=2))
    assert shared.weights == one.weights // 2
    assert shared.cache == one.cache // 8
    assert shared.flops == one.flops // 8


def test_devices_that_share_a_key_head_both_hold_it():
    one, shared = decode_work(job(EVEN, Probes.none())), decode_work(job(EVEN, Probes.none(), model=4))
    assert shared.cache == one.cache // 2
    halves = EVEN.num_layers * 2 * EVEN.kv_heads * EVEN.head_dim * EVEN.embed_dim * 2  # k and v
    assert shared.weights == (one.weights - halves) // 4 + halves // 2


def test_images_are_attended_to_without_computing_their_keys_again():
    found = decode_work(job(WITH_IMAGES, Probes.none()))
    vision = WITH_IMAGES.vision
    image_layers = sum(kind.cross_attention for kind in WITH_IMAGES.kinds)
    keys = vision.max_tiles * vision.patches
    entries = 2 * ROWS * WITH_IMAGES.kv_heads * WITH_IMAGES.head_dim * image_layers * keys
    assert found.cache == WITH_IMAGES.kv_bytes(ROWS * CONTEXT, 2) + 2 * entries
    projections = 2 * image_layers * WITH_IMAGES.num_heads * WITH_IMAGES.head_dim * WITH_IMAGES.embed_dim  # q and o
    projections += 3 * image_layers * WITH_IMAGES.feed_forward * WITH_IMAGES.embed_dim
    text = WITH_IMAGES.num_layers - image_layers
    attention = text * attention_flops(WITH_IMAGES, CONTEXT) + image_layers * attention_flops(WITH_IMAGES, keys)
    assert found.flops == ROWS * (step_flops(WITH_IMAGES) + 2 * projections + attention)


@pytest.mark.parametrize("platform", ["tpu", "cpu"], ids=["stacked", "unrolled"])
def test_recurrent_states_are_read_and_written_whatever_the_context(platform):
    found = decode_work(job(RECURRENT, platform=platform))
    assert found.cache == RECURRENT.kv_bytes(ROWS * CONTEXT, 2) + 2 * ROWS * RECURRENT.recurrent_bytes(2)
    memory = 3 * 4 * 4 * 6  # three layers of four matrices
    assert found.flops == ROWS * (step_flops(RECURRENT) + attention_flops(RECURRENT, CONTEXT) + 6 * memory)
    assert found.tracing_flops == ROWS * (lens_flops(RECURRENT) + attention_flops(RECURRENT, CONTEXT) // 2)
    shared = decode_work(job(RECURRENT, platform=platform, data=2, model=4))  # two devices hold each key head
    assert shared.cache == found.cache // 4


@pytest.mark.parametrize("platform", ["tpu", "cpu"], ids=["stacked", "unrolled"])
def test_layers_that_share_keys_read_them_again_and_hold_them_once(platform):
    held, reading = (job(config, Probes.none(), platform=platform) for config in (SHARING, ALONE))
    assert decode_work(held).cache == decode_work(reading).cache
    state, other = (shard_bytes(each.state(ROWS).cache) for each in (held, reading))
    assert (state, other) == (SHARING.kv_bytes(ROWS * CONTEXT, 2), ALONE.kv_bytes(ROWS * CONTEXT, 2))
    assert other == state * 5 // 3  # of five layers of one width, three have keys and values
    work = decode_work(held)
    slots = 3 * 16 + 2 * CONTEXT
    assert work.flops == ROWS * (step_flops(SHARING) + attention_flops(SHARING, slots))


def test_prefill_feeds_a_group_without_unembedding():
    traced = job(EVEN)
    assert (traced.group, traced.chunk) == (2, 64)
    found = prefill_work(traced)
    positions = 2 * 64
    unembedding = 2 * EVEN.vocab_size * EVEN.embed_dim
    assert found.flops == positions * (step_flops(EVEN) - unembedding + 5 * attention_flops(EVEN, CONTEXT))
    assert found.cache == EVEN.kv_bytes(positions, 2)
    assert found.tracing == 2 * positions * 6 * EVEN.embed_dim * 2
    assert found.tracing_flops == 0
    assert prefill_work(job(EVEN, Probes.of("lens"))).tracing == 0


def test_rows_are_rounded_up_to_the_data_axis():
    # 6 rows become 8, prefilled 4 at a time, as the engine's pool does it.
    found = job(EVEN, data=4, rows=6)
    assert (found.batch, found.group) == (8, 4)
    assert shard_bytes(found.state(found.group)) == shard_bytes(job(EVEN, rows=1).state(1))


def test_measured_prompts_are_unembedded_and_traced():
    probes = Probes(prompt_positions=True)
    plain, found = prefill_work(job(EVEN)), prefill_work(job(EVEN, probes))
    positions = 2 * 64
    assert found.flops == plain.flops + positions * 2 * EVEN.vocab_size * EVEN.embed_dim
    assert found.tracing_flops == positions * (lens_flops(EVEN) + 5 * attention_flops(EVEN, CONTEXT) // 2)
    metrics = sum(trace_bytes(EVEN, probes).values()) - 4
    assert found.tracing == plain.tracing + positions * metrics + EVEN.kv_bytes(positions, 2) // 2


def test_layer_stride_unembeds_fewer_layers():
    probes = Probes.of("lens", layer_stride=2)
    found = decode_work(job(EVEN, probes))
    layers = 3  # of five: 1, 3, 5
    assert found.tracing_flops == ROWS * 2 * (layers - 1) * EVEN.vocab_size * EVEN.embed_dim
    assert found.tracing == ROWS * (trace_bytes(EVEN, probes)["lens"] + 2 * layers * EVEN.embed_dim * 2)


def test_shard_bytes_equal_the_first_device_s_slices():
    shared = job(EVEN, data=2, model=4)
    arrays = shared.params, shared.state(ROWS)

    def on_the_first(x):
        index = next(iter(x.sharding.devices_indices_map(x.shape).values()))
        return np.zeros(x.shape, bool)[index].size * x.dtype.itemsize

    assert shard_bytes(arrays) == sum(map(on_the_first, jax.tree.leaves(arrays)))
