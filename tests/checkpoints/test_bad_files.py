"""Unreadable checkpoints: one line that names the file and says what to do."""

import json
import os

import ml_dtypes
import numpy as np
import pytest

import jaxtrace
from jaxtrace import CheckpointError
from jaxtrace.checkpoints import huggingface
from tests.checkpoints.conftest import GPT2

QUERY = "model.layers.1.self_attn.q_proj.weight"


def refused(name, *parts):
    """Assert that loading fails in one line that contains all parts, and return the line."""
    with pytest.raises(CheckpointError) as error:
        jaxtrace.load(str(name))
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_a_missing_path_is_refused(tmp_path):
    refused(tmp_path / "nothing", "nothing: no such directory", "give a checkpoint directory, a hub id")


def test_a_file_instead_of_a_directory_is_refused(tmp_path):
    (tmp_path / "weights").write_text("")
    refused(tmp_path / "weights", "weights: is a file", "give the checkpoint's directory")


def test_a_directory_without_a_config_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    refused(tmp_path, str(tmp_path), "holds no config.json", "give a Hugging Face checkpoint directory")


def test_a_config_without_weights_is_refused(folder):
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
def test_a_config_that_is_no_json_object_is_refused(folder, text):
    folder.write()
    (folder.path / "config.json").write_text(text)
    refused(folder.path, "config.json: not", "JSON", "download it again")


def test_a_config_that_is_not_text_is_refused(folder):
    folder.write()
    (folder.path / "config.json").write_bytes(b"\xff\xfe\x00{")
    refused(folder.path, "config.json", "download it again")


def test_a_missing_weight_is_named(folder):
    del folder.weights[QUERY]
    refused(folder.write(), "the weights do not fit the config", f"missing: {QUERY}")


def test_an_unknown_weight_is_named(folder):
    folder.weights["model.layers.2.self_attn.q_proj.weight"] = folder.weights[QUERY]
    refused(folder.write(), "unknown: model.layers.2.self_attn.q_proj.weight")


def test_a_wrong_shape_is_named(folder):
    folder.weights[QUERY] = np.zeros((8, 4), np.float32)
    refused(folder.write(), f"{QUERY} has shape [8, 4], not [8, 8]")


@pytest.mark.parametrize(("dtype", "stored"), [("int32", "I32"), ("int64", "I64"), ("bool", "BOOL")])
def test_weights_that_are_not_floats_are_refused(folder, dtype, stored):
    folder.weights[QUERY] = folder.weights[QUERY].astype(dtype)
    refused(folder.write(), f"{QUERY} is stored as {stored}, not as floats")


@pytest.mark.parametrize(
    ("dtype", "stored"), [("int8", "I8"), ("uint8", "U8"), (ml_dtypes.float8_e4m3fn, "F8_E4M3")], ids=str
)
def test_quantised_weights_are_refused(folder, dtype, stored):
    folder.weights[QUERY] = folder.weights[QUERY].astype(dtype)
    refused(folder.write(), f"is quantised ({QUERY}, stored as {stored})", "use the unquantised checkpoint")


@pytest.mark.parametrize(
    "name", ["SCB", "absmax", "quant_state.bitsandbytes__nf4", "qweight", "weight_scale", "weight_scale_inv"]
)
def test_companions_of_quantised_weights_are_refused(folder, name):
    folder.weights[f"{QUERY}.{name}"] = np.ones(8, np.float32)
    refused(folder.write(), f"is quantised ({QUERY}.{name}, stored as F32)", "use the unquantised checkpoint")


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "fbgemm_fp8"}, "fbgemm_fp8"),
        ({"quant_method": "hqq"}, "hqq"),
        ({"quant_method": "torchao"}, "torchao"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"bits": 3}, "an unnamed method"),
        ("int4", "an unnamed method"),
    ],
    ids=str,
)
def test_quantised_configs_are_refused(folder, settings, method):
    folder.config["quantization_config"] = settings
    refused(folder.write(), f"is quantised ({method})", "use the unquantised checkpoint")


def test_a_quantised_text_config_is_refused(folder):
    folder.config["text_config"] = {"quantization_config": {"quant_method": "awq"}}
    refused(folder.write(), "is quantised (awq)", "use the unquantised checkpoint")


def test_a_compressed_config_is_refused(folder):
    folder.config["compression_config"] = {"quant_method": "compressed-tensors"}
    refused(folder.write(), "is quantised (compressed-tensors)")


def test_all_kinds_of_problems_are_listed(folder):
    del folder.weights["model.norm.weight"]
    folder.weights["surprise"] = np.zeros(3, np.float32)
    folder.weights[QUERY] = np.zeros((8, 4), np.float32)
    refused(folder.write(), "missing: model.norm.weight", "unknown: surprise", "has shape [8, 4]")


def test_a_weight_under_two_names_is_refused(folder_of):
    folder = folder_of(GPT2)
    folder.weights["h.0.ln_1.bias"] = folder.weights["transformer.h.0.ln_1.bias"]
    refused(folder.write(), "stored twice: h.0.ln_1.bias and transformer.h.0.ln_1.bias")


def test_a_fused_weight_without_a_part_is_refused(folder_of):
    folder = folder_of(GPT2)
    name = "transformer.h.0.attn.c_attn.weight"
    folder.weights[name] = np.ascontiguousarray(folder.weights[name][:, :16])
    refused(folder.write(), f"{name} has shape [8, 16], not [8, 24]")


def test_at_most_five_weights_are_named(folder):
    expected = len(folder.weights)
    folder.weights |= {f"draft.model.{i}": np.zeros(3, np.float32) for i in range(125)}
    message = refused(folder.write(), "unknown: draft.model.0, ", " and 120 more (all under draft.model)")
    assert message.count("draft.model.") == 5
    folder.weights = {name: values for name, values in folder.weights.items() if name.startswith("draft.")}
    message = refused(folder.write(), f" and {expected - 2} more; unknown: draft.model.0, draft.model.1 and 123 more")
    assert message.count("model.") == 4


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(folder, kept):
    folder.write()
    file = folder.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    refused(folder.path, "model.safetensors: not a readable safetensors file", "download it again")


def test_a_header_beyond_the_file_is_refused(folder):
    folder.write()
    file = folder.path / "model.safetensors"
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:start]), content[start:]
    header["more"] = {"dtype": "F32", "shape": [4], "data_offsets": [len(data), len(data) + 16]}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    refused(folder.path, "model.safetensors: not a readable safetensors file", "download it again")


def test_a_missing_shard_is_named(folder):
    folder.write_sharded()
    (folder.path / "two.safetensors").unlink()
    refused(folder.path, "shard two.safetensors of the index is missing", "download it again")


def test_an_index_that_does_not_fit_the_shards_is_refused(folder):
    folder.write_sharded()
    weight_map = dict.fromkeys(sorted(folder.weights)[::2], "one.safetensors")
    weight_map |= dict.fromkeys(sorted(folder.weights)[1::2], "two.safetensors")
    shard = weight_map[QUERY]
    weight_map[QUERY] = ({"one.safetensors", "two.safetensors"} - {shard}).pop()
    folder.write_index(weight_map)
    refused(folder.path, f"index.json: does not fit the shards (not in {weight_map[QUERY]}: {QUERY}); download")
    folder.write_index(weight_map | {QUERY: shard, "gone": shard})
    refused(folder.path, f"index.json: does not fit the shards (not in {shard}: gone); download")
    del weight_map[QUERY]
    folder.write_index(weight_map)
    refused(folder.path, f"missing: {QUERY}")


@pytest.mark.parametrize("name", ["../model.safetensors", "/model.safetensors", "sub/model.safetensors", "..", ""])
def test_an_index_that_leaves_the_directory_is_refused(folder, name):
    folder.write_sharded()
    folder.write_index(dict.fromkeys(folder.weights, name))
    refused(folder.path, "index.json", "outside the directory")


@pytest.mark.parametrize(
    "text", ["{", "{}", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {}}']
)
def test_an_invalid_index_is_refused(folder, text):
    folder.write_sharded()
    (folder.path / "model.safetensors.index.json").write_text(text)
    refused(folder.path, "index.json: not a valid safetensors index", "download it again")


def test_a_shard_with_the_content_of_another_is_refused(folder):
    folder.write_sharded()
    (folder.path / "two.safetensors").unlink()
    os.link(folder.path / "one.safetensors", folder.path / "two.safetensors")
    message = refused(folder.path, "index.json: does not fit the shards (not in two.safetensors: ", " more); download")
    assert message.count("not in two") == 5


def test_a_tied_unembedding_of_another_shape_is_refused(folder):
    folder.config["tie_word_embeddings"] = True
    folder.weights["lm_head.weight"] = folder.weights["lm_head.weight"][:-1]
    refused(folder.write(), "lm_head.weight has shape [12, 8], not [13, 8]")
    folder.weights["lm_head.weight"] = np.zeros((13, 8), np.int32)
    refused(folder.write(), "lm_head.weight is stored as I32, not as floats")


def test_an_adapter_is_named(folder):
    folder.path.mkdir()
    (folder.path / "adapter_config.json").write_text(
        '{"base_model_name_or_path": "someone/model", "peft_type": "LORA"}'
    )
    refused(folder.path, "is a LoRA or other adapter of someone/model (adapter_config.json)", "merge it into the model")
    (folder.path / "config.json").write_text(json.dumps(folder.config))
    refused(folder.path, "is a LoRA or other adapter of someone/model")
    (folder.path / "adapter_config.json").rename(folder.path / "adapter_model.bin")
    refused(folder.path, "is a LoRA or other adapter of an unnamed model (adapter_model.bin)", ".merge_and_unload()")


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapters.safetensors", "pytorch_lora_weights.safetensors"]
)
def test_weights_of_an_adapter_are_named(folder, name):
    folder.path.mkdir()
    (folder.path / name).write_bytes(b"")
    refused(
        folder.path, f"is a LoRA or other adapter of an unnamed model ({name})", "merge it into the model with peft"
    )


def test_an_adapter_among_the_weights_is_named(folder):
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    folder.weights[name] = np.zeros((2, 8), np.float32)
    refused(folder.write(), f"holds a LoRA or other adapter beside the model's weights ({name})", "merge_and_unload")


@pytest.mark.parametrize("name", ["model.Q4_1.gguf", "MODEL.GGUF", "Q4_1/model.gguf"])
def test_a_damaged_gguf_file_is_named(folder, name):
    file = folder.path / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"GGUF")
    refused(folder.path, f"{name}: is cut off in its header", "download it again")
    refused(file, f"{name}: is cut off in its header")
    (folder.path / "config.json").write_text(json.dumps(folder.config))
    refused(folder.path, f"{name}: is cut off in its header")


def test_variants_and_other_names_of_the_weights_are_named(folder):
    folder.write()
    (folder.path / "model.safetensors").rename(folder.path / "model.fp16.safetensors")
    refused(folder.path, "model.fp16.safetensors: is neither model.safetensors nor a shard", "save_pretrained")


@pytest.mark.parametrize("error", [OSError("no route to host\nsecond line"), ValueError("")])
def test_a_hub_id_without_a_network_is_refused(monkeypatch, error):
    def offline(*_, **__):
        raise error

    monkeypatch.setattr(huggingface, "snapshot_download", offline)
    reason = "no route to host" if str(error) else "ValueError"
    refused("someone/something", "someone/something: is no directory here", reason, "check the name and the network")


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"version": "1.0", "model": {"type": "?"}}'])
def test_an_unreadable_tokenizer_is_refused(folder, text):
    folder.write()
    (folder.path / "tokenizer.json").write_text(text)
    refused(folder.path, str(folder.path), "the tokenizer cannot be read")
