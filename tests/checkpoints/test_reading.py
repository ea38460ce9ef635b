"""Equivalent forms of one checkpoint load as the same model."""

import json
import re

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxtrace
from jaxtrace import DecoderConfig, Probes, plan
from jaxtrace.checkpoints import weights
from jaxtrace.checkpoints.huggingface import open_checkpoint
from jaxtrace.checkpoints.table import weight_table
from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.engine.settings import Settings
from jaxtrace.models.decoder import unembedding
from jaxtrace.models.families.llama import decoder_config
from jaxtrace.models.rope_config import Llama3Scaling, Rope
from tests.checkpoints.conftest import CONFIG, GPT2

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


def loaded_with_notes(folder, caplog):
    """Load a checkpoint; return the model and the notes, each of which must have been logged once."""
    caplog.clear()
    model = jaxtrace.load(folder.write())
    logged = [record.getMessage() for record in caplog.records if record.name == "jaxtrace"]
    assert logged == [f"{folder.path}: {note}" for note in model.notes]
    assert model.info("score", Settings(Probes.none()))["notes"] == list(model.notes)
    return model, model.notes


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "mixed"])
def test_a_stored_unembedding_is_tied_only_if_it_equals_the_embedding(folder, stored, factor, caplog, monkeypatch):
    monkeypatch.setattr(weights, "CHUNK", 8 * 8 * 5)  # five rows at once: the last of 13 alone differs
    folder.config["tie_word_embeddings"] = True
    table = folder.weights[EMBEDDING].astype(ml_dtypes.bfloat16)
    head = table * np.repeat([1, factor], [12, 1])[:, None].astype(table.dtype)
    folder.weights[EMBEDDING] = table.astype("float32" if stored == "float32" else table.dtype)
    folder.weights[UNEMBEDDING] = head.astype(table.dtype if stored == "bfloat16" else "float32")
    model, notes = loaded_with_notes(folder, caplog)
    assert model.config.tied == (factor == 1)
    np.testing.assert_array_equal(unembedding(model.params), head.astype(np.float32))
    assert len(notes) == factor - 1
    assert notes == () or f"{UNEMBEDDING} is stored and differs from {EMBEDDING}" in notes[0]
    assert jaxtrace.load(str(folder.path), random=True).config == model.config
    assert plan(str(folder.path), "cpu-1", batch=1).request.config == model.config


def test_an_unembedding_that_differs_changes_the_fingerprint(folder, monkeypatch):
    """Lenses and runs from before it was read belong to another model."""
    folder.config["tie_word_embeddings"] = True
    read = open_checkpoint(folder.write()).fingerprint()
    monkeypatch.setattr(weights, "_same_values", lambda *_: True)
    assert open_checkpoint(str(folder.path)).fingerprint() != read


def test_an_unembedding_that_differs_is_read_on_a_mesh(folder, max_difference):
    folder.config["tie_word_embeddings"] = True
    single = jaxtrace.load(folder.write(), mesh=None, stacked=True)
    assert max_difference(single, jaxtrace.load(folder.write_sharded(), mesh="data=1,model=1", stacked=True)) == 0


BUFFERS = ("model.layers.1.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq", "rotary_emb.cos_cached")
BUFFERS += ("layers.0.self_attn.rotary_emb.sin_cached", "model.rotary_emb_local.original_inv_freq")


@pytest.mark.parametrize("name", BUFFERS)
def test_buffers_of_old_checkpoints_are_ignored(folder, max_difference, name, caplog):
    plain = jaxtrace.load(folder.write())
    folder.weights[name] = np.ones(2, np.float32)
    model, notes = loaded_with_notes(folder, caplog)
    assert max_difference(plain, model) == 0 and notes == ()


def test_heads_of_other_models_are_ignored_and_named(folder, max_difference, caplog):
    plain = jaxtrace.load(folder.write())
    heads = ("classifier.weight", "critic_head.weight", "score.weight", "v_head.summary.bias")
    folder.weights |= {name: np.ones(2, np.float32) for name in heads}
    model, notes = loaded_with_notes(folder, caplog)
    assert max_difference(plain, model) == 0
    assert notes == (f"weights of other heads are ignored: {', '.join(heads)}",)


# Config, and how a wrapper or an export changes the names.
NAMES = {
    "base model": (CONFIG, lambda name: name.removeprefix("model.")),
    "doubled": (CONFIG, lambda name: name.replace("model.", "model.model.")),
    "in a module that is named model": (CONFIG, lambda name: f"model.{name}"),
    "compiled": (CONFIG, lambda name: f"_orig_mod.{name}"),
    "compiled layers": (CONFIG, lambda name: re.sub(r"(layers\.\d+)", r"\1._orig_mod", name)),
    "data-parallel": (CONFIG, lambda name: f"module.{name}"),
    "compiled, data-parallel": (CONFIG, lambda name: f"_orig_mod.module.{name}"),
    "merged by peft": (CONFIG, lambda name: f"base_model.model.{name}"),
    "doubled GPT-2": (GPT2, lambda name: name.replace("transformer.", "transformer.transformer.")),
    "data-parallel GPT-2 without its prefix": (GPT2, lambda name: name.replace("transformer.", "module.")),
}


@pytest.mark.parametrize("form", NAMES)
def test_names_in_wrappers_are_read_and_noted_once(folder_of, form, max_difference, caplog):
    config, rename = NAMES[form]
    folder = folder_of(config)
    plain, notes = loaded_with_notes(folder, caplog)
    assert notes == ()
    folder.weights = {rename(name): values for name, values in folder.weights.items()}
    model, notes = loaded_with_notes(folder, caplog)
    assert max_difference(plain, model) == 0
    assert len(notes) == 1 and notes[0].startswith("weights are read under other names: ")


def test_the_single_file_is_read_before_the_index(folder, max_difference, caplog):
    """`save_pretrained` over a sharded checkpoint leaves the old index and shards."""
    folder.write_sharded()
    folder.weights = {name: 2 * values for name, values in folder.weights.items()}
    model, notes = loaded_with_notes(folder, caplog)
    assert len(notes) == 1 and "model.safetensors.index.json and its shards are ignored" in notes[0]
    np.testing.assert_array_equal(model.params["embedding"], folder.weights[EMBEDDING])
    before = open_checkpoint(str(folder.path)).fingerprint()
    for shard in ("one", "two"):
        (folder.path / f"{shard}.safetensors").unlink()
    assert max_difference(model, jaxtrace.load(str(folder.path))) == 0
    (folder.path / "model.safetensors.index.json").unlink()
    assert open_checkpoint(str(folder.path)).fingerprint() == before


def test_tensors_that_the_index_does_not_list_are_ignored(folder, max_difference):
    whole = jaxtrace.load(folder.write())
    folder.write_sharded()
    shard = load_file(folder.path / "two.safetensors")
    other = next(name for name in folder.weights if name not in shard)
    save_file(shard | {other: folder.weights[other] + 1, "draft": np.ones(3)}, folder.path / "two.safetensors")
    assert max_difference(whole, jaxtrace.load(str(folder.path))) == 0


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
