"""Real config.json files: accepted, or refused for a computation that jaxtrace does not do."""

import json

import pytest

from jaxtrace.checkpoints.huggingface import read_config
from jaxtrace.errors import JaxtraceError
from jaxtrace.models.families import FAMILIES

# Part of the message of each refused config of a supported model type.
REFUSED = {
    "gemma4__ai-dynamo-nvidia--Gemma-4-26B-A4B-NVFP4": "is quantised",
    "llama__Siddhesh19991-model_config": "is quantised (bitsandbytes)",
    "llama__abdrafay-output": "mem_layer=0, memory_size=64, ret_attn_layers=[0, 1, 2]",
    "llama__abdrafay-output-_debug": "mem_layer=0, memory_size=4096, ret_attn_layers=[14, 18, 22, 26]",
    "llama__aws-neuron-config_chunked_attention": "attention_chunk_size=128",
    "llama__aws-neuron-config_chunked_attention-2": "attention_chunk_size=2048",
    "llama__aws-neuron-config_chunked_attention_tkg_kernel": "attention_chunk_size=256",
    "qwen3_5__ai-dynamo-nvidia--Qwen3.6-27B-NVFP4": "is quantised",
    "qwen2__sgl-project-gte_qwen2_7b": "is_causal=False",
}


def test_every_real_config_is_accepted_or_refused_with_its_true_reason(shared_data, tmp_path):
    files = sorted((shared_data / "configs").glob("*.json"))
    if not files:
        pytest.skip("no configs in the shared data")
    refusals, unknown = {}, []
    for file in files:
        raw = file.read_bytes()
        (tmp_path / "config.json").write_bytes(raw)
        supported = json.loads(raw).get("model_type") in FAMILIES
        try:
            read_config(tmp_path, "it")
            assert supported, file.name
        except JaxtraceError as error:
            message = str(error)
            assert "\n" not in message
            if supported:
                refusals[file.stem] = message
            else:
                unknown.append(message)
    assert all(message.startswith("it: its architecture ") for message in unknown)
    assert all(" is not supported: it" in message and "; the nearest supported " in message for message in unknown)
    assert refusals.keys() == REFUSED.keys()
    for name, part in REFUSED.items():
        assert part in refusals[name]
