"""Refusals of unsupported architectures: they say what differs, and name the nearest supported one."""

import json

import pytest

from jaxtrace.checkpoints.huggingface import read_config
from jaxtrace.errors import CheckpointError
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.families.unsupported import DIFFERENCES, unsupported

NEAREST = "the nearest supported architecture is"


@pytest.mark.parametrize(
    ("kind", "difference", "nearest"),
    [
        ("dbrx", "it is a mixture of experts with another router or other experts", "mixtral"),
        ("laguna", "it is a mixture of experts", "qwen3_moe"),
        ("deepseek_v3", "it is a mixture of experts with multi-head latent attention", "llama"),
        ("mamba", "it has state-space or recurrent layers instead of attention", "llama"),
        ("qwen2_vl", "it is a model of images and text", "qwen2"),
        ("gemma", "it has no norms after its blocks and no soft-caps", "gemma2"),
        ("phi", "its attention and feed-forward run in parallel on one norm", "gpt_neox"),
        ("bloom", "its positions are linear biases of attention (ALiBi)", "gpt2"),
        ("t5", "it has an encoder beside the decoder", "gpt2"),
        ("bert", "it is an encoder, not a causal language model", "gpt2"),
        ("xlm-roberta", "it is an encoder, not a causal language model", "gpt2"),
        # llama.cpp's names
        ("qwen35", "it has gated delta nets, which jaxtrace reads from safetensors only", "qwen3_5"),
        ("command-r", "its attention and feed-forward run in parallel on one LayerNorm, and its logits", "llama"),
    ],
)
def test_the_difference_and_the_nearest_architecture_are_named(kind, difference, nearest):
    sentence = unsupported({"model_type": kind})
    assert sentence.startswith(f"its architecture {kind!r} is not supported: {difference}")
    assert sentence.endswith(f"; {NEAREST} {nearest}")


@pytest.mark.parametrize(
    ("config", "difference", "nearest"),
    [
        ({"num_local_experts": 8}, "it is a mixture of experts", "llama"),
        ({"num_local_experts": 0, "vision_config": {}}, None, None),
        ({"vision_config": {"depth": 1}, "text_config": {"model_type": "qwen3"}}, "it is a model of images", "qwen3"),
        ({"text_config": {"model_type": "mistral", "n_routed_experts": 2}}, "it is a mixture of experts", "mistral"),
        ({"text_config": {"model_type": []}, "model_type": "new_moe"}, "it is a mixture of experts", "llama"),
        ({"model_type": "lama"}, None, "llama"),
        ({"model_type": "Qwen-2"}, None, "qwen2"),
        ({"model_type": "gemma3_new"}, None, "gemma3"),
        ({"model_type": ["llama"]}, None, "llama"),
        ({"model_type": 7}, None, None),
    ],
    ids=str,
)
def test_an_unknown_architecture_is_compared_by_its_attributes_and_its_name(config, difference, nearest):
    sentence = unsupported({"model_type": "zzz"} | config)
    assert (f"is not supported: {difference}" in sentence) if difference else "is not supported; " in sentence
    ending = f"{NEAREST} {nearest}" if nearest else f"jaxtrace supports {', '.join(FAMILIES)}"
    assert sentence.endswith(ending)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architectures": ["DbrxForCausalLM"]}, "its architecture 'Dbrx' is not supported: it is a mixture of"),
        ({"architectures": ["GPTJForCausalLM"], "model_type": None}, "its attention and feed-forward run in parallel"),
        ({"architectures": ["T5ForConditionalGeneration"]}, "it has an encoder beside the decoder"),
        ({"architectures": ["GPT2LMHeadModel"]}, 'its architecture is GPT2LMHeadModel; add "model_type": "gpt2"'),
        ({"architectures": ["LlamaForCausalLM"]}, 'its architecture is LlamaForCausalLM; add "model_type": "llama"'),
        ({"architectures": [3]}, "config.json has no model_type; add one that jaxtrace supports: llama, "),
        ({"architectures": "LlamaForCausalLM"}, "config.json has no model_type"),
        ({}, "config.json has no model_type"),
    ],
    ids=str,
)
def test_architectures_count_without_a_model_type(config, words, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as error:
        read_config(tmp_path, "it")
    assert words in str(error.value) and str(error.value).startswith("it: ")


def test_every_entry_of_the_table_is_unsupported_and_named_once():
    names = [name for _, _, names in DIFFERENCES for name in names.split()]
    assert len(names) == len({*names}) and not {*names} & {*FAMILIES}
    assert {nearest for _, nearest, _ in DIFFERENCES} <= {*FAMILIES}


def test_every_architecture_of_transformers_is_supported_or_refused_in_one_sentence():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    for kind in CONFIG_MAPPING_NAMES.keys() - FAMILIES:
        sentence = unsupported({"model_type": kind})
        assert sentence.startswith(f"its architecture {kind!r} is not supported"), sentence
        assert sentence.endswith(tuple(FAMILIES)) and len(sentence) < 600
