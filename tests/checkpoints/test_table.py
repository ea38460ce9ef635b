"""Weight tables: each parameter is filled by exactly one tensor or part of one."""

import collections

import numpy as np
import pytest

import jaxtrace
from jaxtrace.checkpoints.table import leaves, weight_table
from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.families import FAMILIES
from tests.checkpoints.conftest import CONFIG, GEMMA2, GPT2, GPT_NEOX, GPT_OSS, PHI3

TINY = {"llama": CONFIG, "gemma2": GEMMA2, "gpt2": GPT2, "gpt_neox": GPT_NEOX, "gpt_oss": GPT_OSS, "phi3": PHI3}
# Sizes that transformers' defaults lack.
NO_DEFAULT = {"dots1": {"n_shared_experts": 2, "n_routed_experts": 8, "num_experts_per_tok": 2}}


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_fills_every_parameter_once(kind):
    config = FAMILIES[kind].decoder_config({"model_type": kind} | NO_DEFAULT.get(kind, {}), "test")
    table = weight_table(config)
    filled = collections.Counter((param.path, param.expert) for params in table.values() for param in params)
    parts = {
        path: range(leaf.shape[0]) if "experts" in path else [None] for path, leaf in leaves(abstract_params(config))
    }
    assert filled == dict.fromkeys(((path, part) for path, of_path in parts.items() for part in of_path), 1)
    for name, params in table.items():
        assert len({(param.stored, param.transposed) for param in params}) == 1, name
        by_expert = collections.defaultdict(list)
        for param in params:
            if param.folded != 1:  # in o the heads are inputs
                by_expert[param.expert].append(param.positions.ravel())
        for outputs in by_expert.values():
            np.testing.assert_array_equal(np.sort(np.concatenate(outputs)), np.arange(params[0].outputs), err_msg=name)


@pytest.mark.parametrize(
    ("kind", "stacked"),
    [
        ("llama", False),
        ("gemma2", True),
        ("gpt2", False),
        ("gpt2", True),
        ("gpt_neox", True),
        ("gpt_oss", False),
        ("phi3", False),
    ],
)
def test_reading_inverts_export(folder_of, kind, stacked):
    folder = folder_of(TINY[kind])
    model = jaxtrace.load(folder.write(), stacked=stacked)
    layers = model.params["layers"].layers() if stacked else model.params["layers"]
    exported = export_weights(model.config, {**model.params, "layers": layers})
    assert set(exported) == set(folder.weights)
    for name, values in folder.weights.items():
        np.testing.assert_array_equal(exported[name], values, err_msg=name)


def test_fused_and_transposed_matrices_are_split(folder_of):
    folder = folder_of(GPT2)
    fused = np.arange(8 * 24, dtype=np.float32).reshape(8, 24)  # [in, q · k · v]
    bias = np.arange(24, dtype=np.float32)
    folder.weights["transformer.h.1.attn.c_attn.weight"] = fused
    folder.weights["transformer.h.1.attn.c_attn.bias"] = bias
    attention = jaxtrace.load(folder.write()).params["layers"][1]["attention"]
    for i, name in enumerate("qkv"):
        matrix = fused[:, 8 * i : 8 * i + 8]
        for head in range(2):
            np.testing.assert_array_equal(attention[name][head], matrix[:, 4 * head : 4 * head + 4].T)
            np.testing.assert_array_equal(attention[f"{name}_bias"][head], bias[8 * i + 4 * head :][:4])


def test_a_tensor_of_parts_of_unequal_sizes_is_split(folder_of):
    folder = folder_of(PHI3)
    qkv = np.arange(16 * 8, dtype=np.float32).reshape(16, 8)  # 2 query heads, 1 key head, 1 value head of 4
    gate_up = np.arange(24 * 8, dtype=np.float32).reshape(24, 8)
    folder.weights["model.layers.1.self_attn.qkv_proj.weight"] = qkv
    folder.weights["model.layers.1.mlp.gate_up_proj.weight"] = gate_up
    block = jaxtrace.load(folder.write()).params["layers"][1]
    heads = np.concatenate([block["attention"][name] for name in "qkv"])
    np.testing.assert_array_equal(heads, qkv.reshape(4, 4, 8))
    np.testing.assert_array_equal([block["feed_forward"][name] for name in ("gate", "up")], gate_up.reshape(2, 12, 8))


def test_a_tensor_of_experts_whose_parts_take_turns_is_split(folder_of):
    folder, prefix = folder_of(GPT_OSS), "model.layers.1.mlp.experts."
    gate_up = np.arange(3 * 8 * 24, dtype=np.float32).reshape(3, 8, 24)  # [expert, in, gate 0 · up 0 · gate 1 …]
    folder.weights[f"{prefix}gate_up_proj"], folder.weights[f"{prefix}gate_up_proj_bias"] = (
        gate_up,
        gate_up[:, 0].copy(),
    )
    experts = jaxtrace.load(folder.write()).params["layers"][1]["feed_forward"]["experts"]
    for i, name in enumerate(("gate", "up")):
        np.testing.assert_array_equal(experts[name], gate_up[:, :, i::2].swapaxes(1, 2))
        np.testing.assert_array_equal(experts[f"{name}_bias"], gate_up[:, 0, i::2])
    np.testing.assert_array_equal(experts["down"], folder.weights[f"{prefix}down_proj"].swapaxes(1, 2))


def test_a_tensor_of_parts_head_by_head_is_split(folder_of):
    folder = folder_of(GPT_NEOX)
    qkv = np.arange(24 * 8, dtype=np.float32).reshape(24, 8)
    folder.weights["gpt_neox.layers.1.attention.query_key_value.weight"] = qkv
    folder.weights["gpt_neox.layers.1.attention.query_key_value.bias"] = qkv[:, 0].copy()
    attention = jaxtrace.load(folder.write()).params["layers"][1]["attention"]
    for i, name in enumerate("qkv"):
        np.testing.assert_array_equal(attention[name], qkv.reshape(2, 3, 4, 8)[:, i])
        np.testing.assert_array_equal(attention[f"{name}_bias"], qkv[:, 0].reshape(2, 3, 4)[:, i])


def test_names_without_a_prefix_are_equal(folder_of, max_difference):
    folder = folder_of(GPT2)
    plain = jaxtrace.load(folder.write())
    folder.weights = {name.removeprefix("transformer."): values for name, values in folder.weights.items()}
    folder.weights["h.0.attn.bias"] = np.ones((1, 1, 32, 32), bool)
    assert max_difference(plain, jaxtrace.load(folder.write())) == 0
