"""Configs that jaxtrace does not support: one line that names the attribute and its value."""

import json

import pytest

import jaxtrace
from jaxtrace import CheckpointError, ConfigError

SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED["original_max_position_embeddings"] = 64
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.0], "long_factor": [2.0, 4.0]}


def refused(folder, error_type, *parts):
    with pytest.raises(error_type) as error:
        jaxtrace.load(folder.write())
    message = str(error.value)
    assert "\n" not in message
    assert str(folder.path) in message
    for part in parts:
        assert part in message


def test_an_unsupported_architecture_is_refused(folder):
    folder.config["model_type"] = "gemma"
    what = "its architecture 'gemma' is not supported: it has no norms after its blocks and no soft-caps"
    refused(folder, CheckpointError, f"{what}; the nearest supported architecture is gemma2")


def test_a_quantised_checkpoint_is_refused(folder):
    folder.config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    refused(folder, CheckpointError, "is quantised (gptq)", "use the unquantised checkpoint")


def test_the_architecture_is_checked_before_quantisation(folder):
    folder.config |= {"model_type": "mamba", "quantization_config": {"quant_method": "gptq"}}
    refused(folder, CheckpointError, "its architecture 'mamba'")


@pytest.mark.parametrize("file", ["hf_quant_config.json", "quantize_config.json", "quant_config.json"])
def test_a_file_about_quantisation_beside_the_config_is_refused(folder, file):
    folder.write()
    (folder.path / file).write_text('{"quantization": {"quant_algo": "NVFP4"}}')
    refused(folder, CheckpointError, f"is quantised (it has a {file}); use the unquantised checkpoint")


def test_null_quantisation_is_ignored(folder):
    folder.config["quantization_config"] = None
    assert jaxtrace.load(folder.write()).config.vocab_size == 13


def test_all_unhandled_attributes_are_listed(folder):
    folder.config |= {"sliding_window": 4096, "attention_chunk_size": 8}
    refused(folder, ConfigError, "does not support: attention_chunk_size=8, sliding_window=4096")


def test_harmless_attributes_are_ignored(folder):
    folder.config |= {"use_cache": True, "torch_dtype": "float32", "initializer_range": 0.02, "pad_token_id": None}
    assert jaxtrace.load(folder.write()).config.num_layers == 2


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            {"num_key_value_heads": 3, "num_attention_heads": 4},
            "4 attention heads, which is not a multiple of 3 key/value heads",
        ),
        (
            {"num_attention_heads": 3, "num_key_value_heads": 1},
            "hidden_size=8, which is not a multiple of 3 attention heads",
        ),
        ({"hidden_act": "relu"}, "hidden_act='relu'; jaxtrace supports 'silu', 'gelu', "),
        ({"vocab_size": None}, "vocab_size=None, which must be a positive whole number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0, which must be a positive whole number"),
        ({"hidden_size": "8"}, "hidden_size='8', which must be a positive whole number"),
        ({"intermediate_size": True}, "intermediate_size=True, which must be a positive whole number"),
        ({"head_dim": 3}, "head_dim=3"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps='small'"),
        ({"rope_theta": "wide"}, "rope_theta='wide'"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings='no'"),
        (
            {"rope_scaling": {"type": "linear"}},
            "scaling 'linear' with []; jaxtrace supports 'linear' with ['factor']",
        ),
        ({"rope_scaling": {"type": "mrope"}}, "rope scaling 'mrope' with []; jaxtrace supports 'default', 'linear', "),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope scaling 'llama3' with ['factor']"),
        (
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2, "alpha": 3}},
            "'dynamic' with ['alpha', 'factor']",
        ),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 0.5}}, "factor=0.5, which must be at least 1"),
        ({"head_dim": 2, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rotates 2 dimensions of a head"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5; jaxtrace supports 1.0"),
        ({"rope_parameters": {"rope_type": "proportional", "partial_rotary_factor": 2}}, "partial_rotary_factor=2.0"),
        ({"rope_scaling": {"type": "yarn"}}, "rope scaling 'yarn' without factor or original_max_position_embeddings"),
        ({"rope_scaling": YARN | {"factor": 0.5}}, "factor=0.5, which must be at least 1"),
        ({"rope_scaling": YARN | {"factor": None}}, "factor=0.5, which must be at least 1"),
        ({"rope_scaling": YARN | {"beta_fast": 1, "beta_slow": 2}}, "beta_fast=1, which must be at least beta_slow=2"),
        ({"rope_scaling": YARN | {"beta_slow": 33}}, "beta_fast=32, which must be at least beta_slow=33"),
        ({"rope_scaling": YARN | {"truncate": 1}}, "truncate=1, which must be true or false"),
        ({"rope_scaling": YARN | {"attention_factor": 0}}, "attention_factor=0, which must be a positive number"),
        ({"rope_scaling": YARN | {"mscale": "x", "mscale_all_dim": 1}}, "mscale='x', which must be a positive number"),
        ({"rope_scaling": YARN, "rope_theta": 1}, "rope_theta=1, which yarn needs above 1"),
        ({"rope_scaling": YARN, "original_max_position_embeddings": 0.5}, "original_max_position_embeddings=0.5"),
        ({"rope_scaling": LONGROPE | {"long_factor": None}}, "'longrope' with ['short_factor']; jaxtrace supports"),
        ({"rope_scaling": LONGROPE | {"long_factor": [1.0]}}, "a long_factor of 1, which must be a list of 2 numbers"),
        ({"rope_scaling": LONGROPE | {"short_factor": 3}}, "a short_factor of 3, which must be a list of 2 numbers"),
        ({"rope_scaling": LONGROPE | {"short_factor": [1, 0]}}, "short_factor=0, which must be a positive number"),
        ({"rope_scaling": LONGROPE | {"factor": 0.5}}, "factor=0.5, which must be at least 1"),
        (
            {"rope_scaling": LONGROPE, "original_max_position_embeddings": 1},
            "original_max_position_embeddings=1, which must be at least 2",
        ),
        ({"rope_scaling": {"type": "linear", "factor": -1}}, "factor=-1, which must be a positive number"),
        ({"rope_scaling": "llama3"}, "rope_scaling='llama3'"),
        ({"rope_parameters": {"rope_type": []}}, "rope scaling [] with []"),
        ({"rope_parameters": {"rope_type": {}}}, "rope scaling {} with []"),
        ({"rope_theta": float("inf")}, "rope_theta=inf, which must be a positive number"),
        ({"rope_theta": float("nan")}, "rope_theta=nan, which must be a positive number"),
        ({"rope_theta": 10**400}, "which must be a positive number"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps=inf, which must be a positive number"),
        ({"rope_scaling": {"type": "linear", "factor": float("inf")}}, "factor=inf, which must be a positive number"),
        ({"rope_scaling": SCALED | {"original_max_position_embeddings": float("inf")}}, "embeddings=inf, which must"),
        ({"rope_scaling": SCALED | {"low_freq_factor": 8}}, "low_freq_factor=8, which must not be"),
        ({"num_hidden_layers": 10**30}, "num_hidden_layers=1000000000000000000000000000000, which is above 10000"),
        ({"vocab_size": 2**31}, "vocab_size=2147483648, which is above 2147483647"),
    ],
    ids=str,
)
def test_unhandled_values_are_refused(folder, change, part):
    folder.config |= change
    refused(folder, ConfigError, part)


@pytest.mark.parametrize(
    ("file", "value"),
    [
        *(("config.json", value) for value in ({}, {"a": 1}, "2", 2.0, True, [2, "3"], [[2]], -1, 2**31, [2, 10**30])),
        *(("generation_config.json", value) for value in ([2, "3"], -1, 2**31)),
    ],
    ids=str,
)
def test_an_invalid_end_of_sequence_id_is_refused(folder, file, value):
    folder.write()
    config = folder.config if file == "config.json" else {}
    (folder.path / file).write_text(json.dumps(config | {"eos_token_id": value}))
    with pytest.raises(CheckpointError) as error:
        jaxtrace.load(str(folder.path))
    place = f"{folder.path / file}: eos_token_id is {value!r}; it must be a token id, from 0 to 2147483647"
    assert str(error.value).startswith(place) and "\n" not in str(error.value)


def test_an_end_of_sequence_id_outside_the_vocabulary_is_noted(folder):
    folder.config["eos_token_id"] = [2, 13, 2**31 - 1]
    model = jaxtrace.load(folder.write())
    assert model.stop_tokens == (2,)
    assert "end-of-sequence ids outside the vocabulary of 13 never end a text: 13, 2147483647" in model.notes
