"""Equivalent forms of one checkpoint load as the same model."""

import json

import ml_dtypes
import numpy as np
import pytest

import jaxtrace
from jaxtrace import DecoderConfig
from jaxtrace.checkpoints.huggingface import open_checkpoint
from jaxtrace.checkpoints.table import weight_table
from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.models.config import Llama3Scaling, Rope
from jaxtrace.models.families.llama import decoder_config
from tests.checkpoints.conftest import CONFIG

EMBEDDING, UNEMBEDDING = "model.embed_tokens.weight", "lm_head.weight"
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}


def test_the_config_describes_the_decoder(folder):
    model = jaxtrace.load(folder.write())
    assert model.config == DecoderConfig(
        "llama",
        vocab_size=13,
        embed_dim=8,
        num_layers=2,
        num_heads=2,
        kv_heads=1,
        head_dim=4,
        feed_forward=12,
        context=32,
    )
    assert model.tokenizer is None
    assert model.stop_tokens == (2,)


def test_sharded_weights_equal_those_of_one_file(folder, max_difference):
    whole = jaxtrace.load(folder.write())
    assert max_difference(whole, jaxtrace.load(folder.write_sharded())) == 0


def test_export_inverts_reading(folder):
    model = jaxtrace.load(folder.write())
    exported = export_weights(model.config, model.params)
    assert set(exported) == set(folder.weights) == set(weight_table(model.config))
    for name, values in folder.weights.items():
        np.testing.assert_array_equal(exported[name], values, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_any_float_dtype_is_read_as_float32(folder, dtype):
    folder.weights = {name: values.astype(dtype) for name, values in folder.weights.items()}
    model = jaxtrace.load(folder.write())
    assert model.params["embedding"].dtype == np.float32
    np.testing.assert_array_equal(model.params["embedding"], folder.weights[EMBEDDING].astype(np.float32))


def test_mixed_dtypes_are_read_exactly(folder):
    kinds = (np.float16, ml_dtypes.bfloat16, np.float32)
    for i, name in enumerate(sorted(folder.weights)):
        folder.weights[name] = folder.weights[name].astype(kinds[i % 3])
    model = jaxtrace.load(folder.write())
    for name, values in export_weights(model.config, model.params).items():
        np.testing.assert_array_equal(values, folder.weights[name].astype(np.float32), err_msg=name)


def test_a_requested_dtype_applies_to_all_parameters(folder):
    model = jaxtrace.load(folder.write(), dtype=ml_dtypes.bfloat16)
    assert {str(x.dtype) for x in [model.params["embedding"], model.params["final_norm"]["weight"]]} == {"bfloat16"}


@pytest.mark.parametrize("stored", [(EMBEDDING,), (EMBEDDING, UNEMBEDDING), (UNEMBEDDING,)], ids=len)
def test_a_tied_unembedding_is_found_under_either_name(folder, stored):
    table = folder.weights.pop(EMBEDDING)
    folder.weights.pop(UNEMBEDDING)
    folder.weights |= dict.fromkeys(stored, table)
    folder.config["tie_word_embeddings"] = True
    model = jaxtrace.load(folder.write())
    assert "unembedding" not in model.params or model.params["unembedding"] is None
    np.testing.assert_array_equal(model.params["embedding"], table)


def test_buffers_of_old_checkpoints_are_ignored(folder, max_difference):
    plain = jaxtrace.load(folder.write())
    folder.weights["model.layers.1.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)
    assert max_difference(plain, jaxtrace.load(folder.write())) == 0


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 500.0, "rope_scaling": {"type": "llama3", **LLAMA3}},
        {"rope_theta": 500.0, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_theta": 500, "rope_scaling": {"rope_type": "llama3", "type": "llama3", **LLAMA3}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, **LLAMA3}},
    ],
    ids=["old type", "old rope_type", "old both", "current"],
)
def test_all_forms_of_rope_scaling_are_equal(rope):
    config = {name: value for name, value in CONFIG.items() if name != "rope_theta"}
    parsed = decoder_config({**config, **rope}, "test")
    assert parsed.pattern[0].rope == Rope(500.0, Llama3Scaling(8.0, 1.0, 4.0, 16))


@pytest.mark.parametrize(
    "rope",
    [
        {},
        {"rope_theta": 10000.0, "rope_scaling": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        {"rope_theta": 10000.0, "rope_parameters": {"rope_type": "default"}},
    ],
    ids=str,
)
def test_all_forms_of_plain_rope_are_equal(rope):
    config = {name: value for name, value in CONFIG.items() if name != "rope_theta"}
    parsed = decoder_config({**config, **rope}, "test")
    assert parsed.pattern[0].rope == Rope(10_000.0)


@pytest.mark.parametrize(
    ("config", "generation", "stops"),
    [
        (None, None, ()),
        (2, None, (2,)),
        ([2, 5], {}, (2, 5)),
        (2, {"eos_token_id": [7, 2, 3]}, (2, 3, 7)),
        (None, {"eos_token_id": 4}, (4,)),
        (2, {"eos_token_id": None}, (2,)),
    ],
)
def test_end_of_sequence_ids_are_merged(folder, config, generation, stops):
    folder.config["eos_token_id"] = config
    folder.write()
    if generation is not None:
        (folder.path / "generation_config.json").write_text(json.dumps(generation))
    assert open_checkpoint(str(folder.path)).stop_tokens == stops


def test_the_fingerprint_depends_on_weights_and_config(folder):
    before = open_checkpoint(folder.write()).fingerprint()
    assert open_checkpoint(folder.write()).fingerprint() == before
    folder.weights["model.norm.weight"] = folder.weights["model.norm.weight"] + 1
    changed = open_checkpoint(folder.write()).fingerprint()
    folder.config["rms_norm_eps"] = 1e-6
    assert len({before, changed, open_checkpoint(folder.write()).fingerprint()}) == 3


def test_a_hub_id_is_downloaded_without_pickles(folder, monkeypatch):
    folder.write()
    requests = []

    def fetch(name, allow_patterns):
        requests.append((name, allow_patterns))
        return str(folder.path)

    monkeypatch.setattr("jaxtrace.checkpoints.huggingface.snapshot_download", fetch)
    assert jaxtrace.load("someone/something").config.vocab_size == 13
    (name, patterns), *_ = requests
    assert name == "someone/something"
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in patterns)
