"""Writes GGUF files from checkpoints in Hugging Face's layout, by the rules of llama.cpp's convert_hf_to_gguf.py."""

import re

import gguf
import numpy as np

ARCHITECTURES = {
    "gemma3_text": "gemma3",
    "gemma4_text": "gemma4",
    "gpt_neox": "gptneox",
    "gpt_oss": "gpt-oss",
    "ministral3": "mistral3",
    "mistral": "llama",
    "mixtral": "llama",
    "olmo3": "olmo2",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}
INTERLEAVED = ("llama", "mistral3", "smollm3")
SIZES = {
    "max_position_embeddings": "context_length",
    "n_positions": "context_length",
    "hidden_size": "embedding_length",
    "n_embd": "embedding_length",
    "num_hidden_layers": "block_count",
    "n_layer": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "n_head": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "sliding_window": "attention.sliding_window",
    "num_experts": "expert_count",
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "top_k_experts": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
}
NUMBERS = {
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
    "layer_norm_eps": "attention.layer_norm_epsilon",
    "rope_theta": "rope.freq_base",
    "rotary_emb_base": "rope.freq_base",
    "rope_local_base_freq": "rope.freq_base_swa",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}


def write_gguf(path, config, weights, *, kinds=None, metadata=None, tensors=None):
    """Write a checkpoint as GGUF and return the path.

    Args:
      path: file to write.
      config: content of config.json, with all sizes.
      weights: float32 tensors by Hugging Face's name.
      kinds: types of some matrices by llama.cpp's name; others are float32.
      metadata: entries to add or replace, by key with "{arch}"; None leaves one out.
      tensors: further tensors by llama.cpp's name.
    """
    architecture = ARCHITECTURES.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (entries(config) | (metadata or {})).items():
        if value is not None:
            add(writer, key.format(arch=architecture), value)
    whole = (split_experts(weights) if architecture == "gpt-oss" else stacked(weights)).items()
    converted = {llama_cpp_name(name, architecture): as_stored(name, x, config) for name, x in whole}
    for name, values in (converted | (tensors or {})).items():
        kind = (kinds or {}).get(name, "F32")
        if isinstance(kind, str):
            kind = gguf.GGMLQuantizationType[kind]
        stored = gguf.quantize(np.ascontiguousarray(values), kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def entries(config):
    """Return the metadata of a config."""
    found = {f"{{arch}}.{SIZES[name]}": int(config[name]) for name in SIZES if config.get(name)}
    found |= {f"{{arch}}.{NUMBERS[name]}": float(config[name]) for name in NUMBERS if config.get(name)}
    if config.get("head_dim"):
        found |= {f"{{arch}}.attention.{part}_length": config["head_dim"] for part in ("key", "value")}
    return found


def add(writer, key, value):
    """Add an entry with the type that llama.cpp gives it."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def stacked(weights):
    """Return the weights with one tensor for all experts, where each has one of its own."""
    experts = {}
    for name in weights:
        experts.setdefault(re.sub(r"\.experts\.\d+\.", ".experts.", name), []).append(name)
    return {
        name: weights[each[0]] if name in each else np.stack([weights[x] for x in each])
        for name, each in experts.items()
    }


def split_experts(weights):
    """Return gpt-oss's weights with gate and up in tensors of their own, and no matrix of experts transposed."""
    split = {}
    for name, values in weights.items():
        base, _, kind = name.rpartition(".")
        if base.endswith(".experts"):
            end = "bias" if kind.endswith("_bias") else "weight"
            values = values if end == "bias" else values.swapaxes(1, 2)
            parts = {"gate": values[:, ::2], "up": values[:, 1::2]} if "gate_up" in kind else {"down": values}
            split |= {f"{base}.{part}_proj.{end}": x for part, x in parts.items()}
        else:
            split[name] = values
    return split


def llama_cpp_name(name, architecture):
    """Return llama.cpp's name of a tensor."""
    if scale := re.fullmatch(r"model\.layers\.(\d+)\.router\.(scale|per_expert_scale)", name):
        return f"blk.{scale[1]}.{'ffn_gate_inp' if scale[2] == 'scale' else 'ffn_down_exps'}.scale"
    arch = next(arch for arch, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture)
    name = name if name.endswith((".weight", ".bias")) else f"{name}.weight"
    stored = gguf.get_tensor_name_map(arch, 8).get_name(name, try_suffixes=(".weight", ".bias"))
    assert stored is not None, name
    return stored


def as_stored(name, values, config):
    """Return the values that convert_hf_to_gguf.py stores."""
    kind = config["model_type"]
    if kind in ("gemma2", "gemma3_text") and name.endswith("norm.weight"):
        return values + np.float32(1)
    if kind == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return values.T
    if ARCHITECTURES.get(kind, kind) in INTERLEAVED and ".q_proj." in name:
        return permute(values, config["num_attention_heads"])
    if ARCHITECTURES.get(kind, kind) in INTERLEAVED and ".k_proj." in name:
        return permute(values, config.get("num_key_value_heads") or config["num_attention_heads"])
    if name.endswith("shared_expert_gate.weight"):
        return values[0]
    if kind == "gpt_neox" and "query_key_value" in name:
        heads = values.reshape(config["num_attention_heads"], 3, -1, *values.shape[1:])
        return np.concatenate([heads[:, part].reshape(-1, *values.shape[1:]) for part in range(3)])
    return values


def permute(values, heads):
    """Interleave the two halves of each head's rows."""
    rows = values.shape[0]
    return values.reshape(heads, 2, rows // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
