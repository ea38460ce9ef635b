"""Checkpoints with experts that do not fit are refused by every verb in one line, and nothing is written."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.models.decoder import abstract_params
from jaxtrace.models.families import FAMILIES
from tests.checkpoints.gguf_files import write_gguf
from tests.models.cases import SMALL

CONFIG = SMALL["qwen3_moe"] | {"model_type": "qwen3_moe", "num_hidden_layers": 1, "num_experts": 4}
CONFIG |= {"rms_norm_eps": 1e-6, "rope_theta": 500.0, "norm_topk_prob": True}
LAYER = "model.layers.0.mlp.experts"


@pytest.fixture(scope="module")
def weights():
    config = FAMILIES["qwen3_moe"].decoder_config(CONFIG, "test")
    return export_weights(config, jax.tree.map(lambda x: np.zeros(x.shape, np.float32), abstract_params(config)))


@pytest.fixture
def refused_by(jaxtrace, tmp_path):
    """Assert that some verbs refuse a checkpoint in one line with some words, and write nothing."""

    def call(verbs, source, words):
        commands = {
            "info": ("info", source),
            "plan": ("plan", "--model", source, "--topology", "v5e-4"),
            "trace": ("trace", source, "--prompts", tmp_path / "ids.jsonl", "--out", tmp_path / "run"),
            "convert": ("convert", source, tmp_path / "converted"),
        }
        (tmp_path / "ids.jsonl").write_text('{"tokens": [1, 2]}\n')
        for verb in verbs:
            done = jaxtrace(*commands[verb])
            assert done.status == 2, (verb, done.out, done.err)
            assert words in done.err and done.err.count("\n") == 1, (verb, done.err)
        assert not (tmp_path / "run").exists() and not (tmp_path / "converted").exists()

    return call


def written(path, config, tensors):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def without(weights, *names):
    return {name: x for name, x in weights.items() if name not in names}


@pytest.mark.parametrize("change", ["missing", "doubled", "cut", "more"])
def test_stored_experts_that_do_not_fit_are_refused(change, weights, tmp_path, refused_by):
    name = f"{LAYER}.2.up_proj.weight"
    stacked = np.stack([weights[f"{LAYER}.{i}.down_proj.weight"] for i in range(4)])
    tensors, words = {
        "missing": (without(weights, name), f"missing: {name}"),
        "doubled": (weights | {f"{LAYER}.down_proj": stacked}, f"stored twice: {LAYER}.down_proj"),
        "cut": (weights | {name: weights[name][:5]}, f"{name} has shape [5, 32], not [16, 32]"),
        "more": (weights | {f"{LAYER}.4.up_proj.weight": weights[name]}, f"unknown: {LAYER}.4.up_proj.weight"),
    }[change]
    refused_by(["trace", "convert"], written(tmp_path / "tiny", CONFIG, tensors), words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_experts_per_tok": 5}, "num_experts_per_tok=5, which is above num_experts=4"),
        ({"num_experts": 10**9}, "num_experts=1000000000 in 1 layers, which are above 50000 in all"),
        ({"n_group": 4}, "n_group=4; jaxtrace supports 1"),
        ({"model_type": "qwen3"}, "num_experts=4; jaxtrace supports 0"),
        ({"model_type": "deepseek_v3"}, "the nearest supported architecture is"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_configs_of_experts_that_do_not_fit_are_refused(changes, words, weights, tmp_path, refused_by):
    refused_by(["info", "plan", "trace", "convert"], written(tmp_path / "tiny", CONFIG | changes, weights), words)


def test_a_mesh_that_does_not_divide_the_experts_is_refused(tmp_path, weights, refused_by, jaxtrace):
    config = CONFIG | {"num_experts": 5, "num_key_value_heads": 4}
    source = written(tmp_path / "tiny", config, weights)
    done = jaxtrace("plan", "--model", source, "--topology", "v5e-4", "--mesh", "model=4")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "4 parts do not divide 4 heads (4 key/value heads) and 5 experts; model may be 1" in done.err


@pytest.mark.parametrize("change", ["missing", "doubled", "cut", "more"])
def test_experts_of_a_gguf_file_that_do_not_fit_are_refused(change, weights, tmp_path, refused_by):
    up = np.stack([weights[f"{LAYER}.{i}.up_proj.weight"] for i in range(4)])
    rest = {name: x for name, x in weights.items() if "up_proj" not in name}
    stacked = {
        "missing": {},
        "doubled": {"blk.0.ffn_up_exps.weight": up, "blk.0.ffn_up.weight": up[0]},
        "cut": {"blk.0.ffn_up_exps.weight": up[:, :5]},
        "more": {"blk.0.ffn_up_exps.weight": np.concatenate([up, up[:1]])},
    }[change]
    file = write_gguf(tmp_path / "tiny.gguf", CONFIG, rest, tensors=stacked)
    words = {
        "missing": f"missing: {LAYER}.0.up_proj.weight",
        "doubled": "unknown: blk.0.ffn_up.weight",
        "cut": f"{LAYER}.up_proj has shape [4, 5, 32], not [4, 16, 32]",
        "more": f"{LAYER}.up_proj has shape [5, 16, 32], not [4, 16, 32]",
    }[change]
    refused_by(["trace", "convert"], file, words)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"{arch}.expert_count": None}, "has qwen3moe.expert_count=None and routers"),
        ({"{arch}.expert_used_count": 5}, "num_experts_per_tok=5, which is above num_experts=4"),
        ({"{arch}.expert_used_count": None}, "has no qwen3moe.expert_used_count"),
        ({"{arch}.expert_count": [4, 5]}, "qwen3moe.expert_count=[4, 5], which must be a positive whole number"),
        ({"{arch}.expert_gating_func": 2}, "qwen3moe.expert_gating_func=2"),
        ({"{arch}.expert_weights_norm": False}, "qwen3moe.expert_weights_norm=False"),
        ({"{arch}.expert_weights_scale": 2.5}, "qwen3moe.expert_weights_scale=2.5"),
        ({"{arch}.expert_group_count": 2}, "qwen3moe.expert_group_count=2"),
    ],
    ids=lambda x: str(x)[:40],
)
def test_metadata_of_experts_that_do_not_fit_are_refused(metadata, words, weights, tmp_path, refused_by):
    refused_by(["info", "convert"], write_gguf(tmp_path / "tiny.gguf", CONFIG, weights, metadata=metadata), words)
