"""Costs of a trace, compared with counts by hand and with real arrays."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxtrace import Model, Probes, init_params
from jaxtrace.models.cache import empty_cache
from jaxtrace.models.config import LayerKind
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.published import find_published
from jaxtrace.planning.cost import lens_flops, parameter_count, step_flops, torch_attention_bytes, trace_bytes
from jaxtrace.schema import METRICS
from tests.engine.conftest import CONFIG
from tests.engine.test_hybrid import HYBRID
from tests.engine.test_images import WITH_IMAGES
from tests.models.cases import SMALL

WINDOWED = dataclasses.replace(CONFIG, pattern=(LayerKind(window=4), LayerKind()))
SHARING = FAMILIES["gemma4_text"].decoder_config({"model_type": "gemma4_text", **SMALL["gemma4_text"]}, "sharing")
CONFIGS = {"plain": CONFIG, "windows": WINDOWED, "vision": WITH_IMAGES}
HYBRID = dataclasses.replace(HYBRID, output_gate=True)
ALL = CONFIGS | {"sharing": SHARING, "hybrid": HYBRID}


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def multiplied(config):
    """Return the number of matrix entries that multiply a token of text, from the parameters themselves."""
    params = abstract_params(config)
    blocks = [block for block, kind in zip(params["layers"], config.kinds, strict=True) if not kind.cross_attention]
    attention = [block["attention"] for block in blocks if "attention" in block]
    matrices = [layer.get(name) for layer in attention for name in (*"qkvo", "output_gate")]
    nets = [block["delta_net"] for block in blocks if "delta_net" in block]
    matrices += [x for net in nets for name, x in net.items() if name in ("q", "k", "v", "decay", "beta", "gate", "o")]
    matrices += [block["feed_forward"].get(name) for block in blocks for name in ("gate", "up", "down")]
    matrices += [block.get("layer_input", {}).get(name) for block in blocks for name in ("gate", "down")]
    matrices += [params.get("layer_inputs", {}).get("projection")]
    unembedding = params["embedding" if config.tied else "unembedding"].shape[1] * config.vocab_size
    return unembedding + sum(matrix.size for matrix in matrices if matrix is not None)


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        # 16 layers of q and o 2048², k and v 512 · 2048, three matrices 8192 · 2048; V D = 128256 · 2048
        ("llama-3.2-1b", 2 * (16 * (2 * 2048**2 + 2 * 512 * 2048 + 3 * 8192 * 2048) + 128256 * 2048)),
        # 12 layers of 4 · 768², two matrices 4 · 768²; positions are looked up
        ("gpt2", 2 * (12 * (4 * 768**2 + 2 * 4 * 768**2) + 50257 * 768)),
        # 15 layers have k and v, of one head; every fifth layer has heads of 512, the others of 256; the last 20 have a
        # feed-forward block of 2 · 6144; 35 inputs of 256, each with a gate and a projection back
        (
            "gemma-4-e2b",
            2
            * 1536
            * (
                (28 * 256 + 7 * 512) * 2 * 8
                + (12 * 256 + 3 * 512) * 2
                + 3 * 6144 * (15 + 2 * 20)
                + 35 * 256 * 3
                + 262144
            ),
        ),
        # q and o 1024 × 1152, k and v 256 × 1152
        ("gemma-3-1b", 2 * (26 * (2 * 1024 * 1152 + 2 * 256 * 1152 + 3 * 6912 * 1152) + 262144 * 1152)),
    ],
)
def test_step_flops_equal_counts_by_hand(name, flops):
    assert step_flops(find_published(name).config) == flops


@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_step_flops_count_every_matrix_of_the_text(config):
    assert step_flops(config) == 2 * multiplied(config)


def test_costs_of_text_exclude_cross_attention():
    vision, text = find_published("llama-3.2-11b-vision").config, find_published("llama-3.1-8b").config
    assert step_flops(vision) == step_flops(text)
    assert torch_attention_bytes(vision, 100) == torch_attention_bytes(text, 100) == 4 * 32 * 32 * 100**2
    assert vision.kv_bytes(1, 2) == text.kv_bytes(1, 2) == 128 * 1024
    assert parameter_count(vision) > parameter_count(text)


def test_kv_bytes_count_shared_keys_once_and_each_layer_s_own_width():
    # 15 of the 35 layers have keys and values: 12 have one head of 256, and 3 have one head of 512.
    assert find_published("gemma-4-e2b").config.kv_bytes(1, 2) == 2 * 2 * (12 * 256 + 3 * 512)
    # 60 layers; every sixth has 4 heads of 512, the others 16 of 256.
    assert find_published("gemma-4-31b").config.kv_bytes(1, 2) == 2 * 2 * (50 * 16 * 256 + 10 * 4 * 512)


def test_lens_flops_unembed_every_layer_but_the_last():
    assert lens_flops(CONFIG) == 2 * 2 * 37 * 32


def test_trace_bytes_equal_the_bytes_of_a_trace(config):
    model = Model("tiny", config, init_params(config, jax.random.key(0)))
    row = model.generate([[1, 2, 3]], max_new_tokens=2).rows[0]
    by_group = trace_bytes(config, Probes.all())
    assert set(by_group) == {metric.group for metric in METRICS.values()} - {"sampler", "router", "top_k_mass"}
    for group, size in by_group.items():
        values = [row.metrics[name] for name in row.metrics if METRICS[name].group == group]
        assert sum(value.nbytes for value in values) == 2 * size, group


@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_kv_and_recurrent_bytes_equal_the_bytes_of_a_cache(config):
    cache = empty_cache(config, 3, 24, stacked=False, dtype=jnp.bfloat16)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(cache)) == 3 * (
        config.kv_bytes(24, 2) + config.recurrent_bytes(2)
    )


def test_recurrent_bytes_do_not_grow_with_the_tokens():
    # Three of four layers have a state: 2 · 40 inputs of the convolution and four float32 matrices of 4 · 6.
    assert HYBRID.recurrent_bytes(2) == 3 * (2 * 2 * 40 + 4 * 4 * 4 * 6)
    assert HYBRID.kv_bytes(10, 2) == 10 * 2 * 2 * 2 * 8 and CONFIG.recurrent_bytes() == 0
    assert torch_attention_bytes(HYBRID, 100) == 4 * 4 * 100**2
