"""Names of weights in checkpoints: different names give the same parameters."""

import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxtrace
from jaxtrace import CheckpointError, init_params
from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.models.families import FAMILIES
from tests.models.cases import SMALL

VISION = {
    "vision_tower.vision_model.embeddings.patch_embedding.bias",
    "multi_modal_projector.mm_input_projection_weight",
}
MASKS = {f"transformer.h.{i}.attn.{name}" for i in range(3) for name in ("bias", "masked_bias")}

# (model type, substitution in the canonical names, additional tensors in the file)
FORMS = {
    "gemma3, the hub's": ("gemma3", (r"^model\.", "language_model.model."), VISION),
    "gemma3, transformers 5 in memory": (
        "gemma3",
        (r"^model\.", "model.language_model."),
        {f"model.{name}" for name in VISION},
    ),
    "gemma3, text alone": ("gemma3", (r"^", ""), set()),
    "mistral3, Mistral's": ("mistral3", (r"^model\.", "language_model.model."), VISION),
    "mistral3, Ministral's": (
        "mistral3",
        (r"^model\.", "model.language_model."),
        {f"model.{name}" for name in VISION},
    ),
    "qwen3_5, the hub's": (
        "qwen3_5",
        (r"^model\.", "model.language_model."),
        {"model.visual.blocks.0.norm1.weight", "mtp.layers.0.self_attn.q_proj.weight", "mtp.fc.weight"},
    ),
    "qwen3_5_text, with the layers that predict a second token": ("qwen3_5_text", (r"^", ""), {"mtp.norm.weight"}),
    "llama4, the hub's": (
        "llama4",
        (r"^(model|lm_head)\.", r"language_model.\1."),
        {"vision_model.layernorm_pre.weight", "multi_modal_projector.linear_1.weight"},
    ),
    "minimax_m2, transformers 5 in memory": ("minimax_m2", (r"\.block_sparse_moe\.", ".mlp."), set()),
    "gpt2, the hub's": ("gpt2", (r"^transformer\.", ""), {name.removeprefix("transformer.") for name in MASKS}),
    "gpt2, with its masks": ("gpt2", (r"^", ""), MASKS),
    "gpt_neox, transformers 5 in memory": ("gpt_neox", (r"^embed_out\.", "lm_head."), set()),
    "gpt_neox, with its masks and rotary buffers": (
        "gpt_neox",
        (r"^", ""),
        {f"gpt_neox.layers.2.attention.{name}" for name in ("bias", "masked_bias", "rotary_emb.inv_freq")},
    ),
    "llama, with rotary buffers": ("llama", (r"^", ""), {"model.layers.0.self_attn.rotary_emb.inv_freq"}),
}


def write(directory, kind, rename, additional):
    """Write a random checkpoint with other names; return its parameters."""
    raw = {"model_type": kind} | SMALL[kind]
    config = FAMILIES[kind].decoder_config(raw, "tiny")
    params = init_params(config, jax.random.key(0))
    weights = {re.sub(*rename, name): x for name, x in export_weights(config, params).items()}
    (directory / "config.json").write_text(json.dumps(raw))
    save_file(weights | {name: np.ones(3, np.float32) for name in additional}, directory / "model.safetensors")
    return params


@pytest.mark.parametrize("form", FORMS)
def test_parameters_do_not_depend_on_the_form_of_names(form, tmp_path):
    params = write(tmp_path, *FORMS[form])
    jax.tree.map(np.testing.assert_array_equal, jaxtrace.load(str(tmp_path)).params, params)


@pytest.mark.parametrize("name", ["vision_tower.x", "model.layers.0.self_attn.bias", "layers.0.mlp.up_proj.weight"])
def test_a_text_model_refuses_unknown_names(name, tmp_path):
    write(tmp_path, "llama", (r"^", ""), {name})
    with pytest.raises(CheckpointError, match=f"unknown: {re.escape(name)}"):
        jaxtrace.load(str(tmp_path))
