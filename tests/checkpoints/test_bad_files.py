"""Checkpoints whose files cannot be read: one line that names the thing and says what to do."""

import os

import numpy as np
import pytest

import jaxtrace
from jaxtrace import CheckpointError
from jaxtrace.checkpoints import huggingface

QUERY = "model.layers.1.self_attn.q_proj.weight"


def refused(name, *parts):
    """Loading fails in one line that holds all the parts."""
    with pytest.raises(CheckpointError) as error:
        jaxtrace.load(str(name))
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_a_missing_path(tmp_path):
    refused(tmp_path / "nothing", "nothing: no such directory", "give a checkpoint directory, a hub id")


def test_a_file(tmp_path):
    (tmp_path / "weights").write_text("")
    refused(tmp_path / "weights", "weights: is a file", "give the checkpoint's directory")


def test_a_directory_that_is_no_checkpoint(tmp_path):
    refused(tmp_path, str(tmp_path), "holds no config.json", "give a Hugging Face checkpoint directory")


def test_a_config_without_weights(folder):
    folder.write()
    (folder.path / "model.safetensors").unlink()
    refused(folder.path, str(folder.path), "holds no model.safetensors", "give a Hugging Face checkpoint")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused(folder, name):
    folder.write()
    (folder.path / "model.safetensors").unlink()
    (folder.path / name).write_bytes(b"\x80\x04")
    refused(folder.path, name, "pickle files can run code", "save the checkpoint as safetensors")


@pytest.mark.parametrize("text", ['{"model_type": ', "[1, 2]", ""])
def test_a_config_that_is_not_json(folder, text):
    folder.write()
    (folder.path / "config.json").write_text(text)
    refused(folder.path, "config.json: not", "JSON", "download it again")


def test_a_config_that_is_not_text(folder):
    folder.write()
    (folder.path / "config.json").write_bytes(b"\xff\xfe\x00{")
    refused(folder.path, "config.json", "download it again")


def test_a_missing_weight(folder):
    del folder.weights[QUERY]
    refused(folder.write(), "the weights do not fit the config", f"missing: {QUERY}")


def test_an_extra_weight(folder):
    folder.weights["model.layers.2.self_attn.q_proj.weight"] = folder.weights[QUERY]
    refused(folder.write(), "unknown: model.layers.2.self_attn.q_proj.weight")


def test_a_wrong_shape(folder):
    folder.weights[QUERY] = np.zeros((8, 4), np.float32)
    refused(folder.write(), f"{QUERY} has shape [8, 4], not [8, 8]")


@pytest.mark.parametrize(("dtype", "stored"), [("int8", "I8"), ("uint8", "U8"), ("int32", "I32"), ("bool", "BOOL")])
def test_weights_that_are_not_floats(folder, dtype, stored):
    folder.weights[QUERY] = folder.weights[QUERY].astype(dtype)
    refused(folder.write(), f"{QUERY} is stored as {stored}, not as floats")


def test_all_problems_at_once(folder):
    del folder.weights["model.norm.weight"]
    folder.weights["surprise"] = np.zeros(3, np.float32)
    folder.weights[QUERY] = np.zeros((8, 4), np.float32)
    refused(folder.write(), "missing: model.norm.weight", "unknown: surprise", "has shape [8, 4]")


def test_many_problems_are_counted(folder):
    folder.weights = {"surprise": np.zeros(3, np.float32)}
    refused(folder.write(), "and 14 more")


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file(folder, kept):
    folder.write()
    file = folder.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    refused(folder.path, "model.safetensors: not a readable safetensors file", "download it again")


def test_a_missing_shard(folder):
    folder.write_sharded()
    (folder.path / "two.safetensors").unlink()
    refused(folder.path, "shard two.safetensors of the index is missing", "download it again")


def test_an_index_that_names_a_weight_its_shard_lacks(folder):
    folder.write_sharded()
    folder.write_index(dict.fromkeys(folder.weights, "one.safetensors"))
    refused(folder.path, "missing: ")


@pytest.mark.parametrize("name", ["../model.safetensors", "/model.safetensors", "sub/model.safetensors", "..", ""])
def test_an_index_that_leads_elsewhere(folder, name):
    folder.write_sharded()
    folder.write_index(dict.fromkeys(folder.weights, name))
    refused(folder.path, "index.json", "outside the directory")


@pytest.mark.parametrize(
    "text", ["{", "{}", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {}}']
)
def test_a_broken_index(folder, text):
    folder.write_sharded()
    (folder.path / "model.safetensors.index.json").write_text(text)
    refused(folder.path, "index.json: not a valid safetensors index", "download it again")


def test_a_weight_stored_twice(folder):
    folder.write_sharded()
    (folder.path / "two.safetensors").unlink()
    os.link(folder.path / "one.safetensors", folder.path / "two.safetensors")
    refused(folder.path, "is stored twice")


@pytest.mark.parametrize("error", [OSError("no route to host\nsecond line"), ValueError("")])
def test_a_hub_id_without_a_network(monkeypatch, error):
    def offline(*_, **__):
        raise error

    monkeypatch.setattr(huggingface, "snapshot_download", offline)
    reason = "no route to host" if str(error) else "ValueError"
    refused("someone/something", "someone/something: is no directory here", reason, "check the name and the network")


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"version": "1.0", "model": {"type": "?"}}'])
def test_a_broken_tokenizer(folder, text):
    folder.write()
    (folder.path / "tokenizer.json").write_text(text)
    refused(folder.path, str(folder.path), "the tokenizer cannot be read")
