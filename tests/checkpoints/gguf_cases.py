"""Small configs of the architectures of GGUF files, with the metadata that convert_hf_to_gguf.py adds to the sizes."""

from tests.checkpoints.conftest import CONFIG, GPT_OSS


def _scaling(**entries):
    return {f"{{arch}}.rope.scaling.{key}": value for key, value in entries.items()}


def _types(*windows):
    return [f"{'sliding' if window else 'full'}_attention" for window in windows]


_LINEAR, _STORED_LINEAR = {"rope_type": "linear", "factor": 8.0}, _scaling(type="linear", factor=8.0)
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}
_STORED_YARN = _scaling(type="yarn", factor=4.0, original_context_length=8)
LONGROPE = {"rope_type": "longrope", "short_factor": [1.0, 1.5], "long_factor": [2.0, 4.0], "attention_factor": 1.25}

_GEMMA = CONFIG | {
    "head_dim": 6,
    "hidden_act": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 4,
    "query_pre_attn_scalar": 6,
    "num_hidden_layers": 3,
    "tie_word_embeddings": True,
}
_GEMMA4 = {
    "model_type": "gemma4_text",
    "vocab_size": 13,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "global_head_dim": 8,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
    "sliding_window": 4,
    "final_logit_softcapping": 3.0,
    "layer_types": _types(True, False, True, True, False),
    "rope_parameters": {
        "sliding_attention": {"rope_theta": 50.0},
        "full_attention": {"rope_type": "proportional", "rope_theta": 500.0, "partial_rotary_factor": 0.25},
    },
}
_STORED_GEMMA4 = {
    "{arch}.attention.key_length": 8,
    "{arch}.attention.value_length": 8,
    "{arch}.attention.key_length_swa": 4,
    "{arch}.attention.value_length_swa": 4,
    "{arch}.attention.sliding_window_pattern": [True, False, True, True, False],
    "{arch}.rope.freq_base": 500.0,
    "{arch}.rope.freq_base_swa": 50.0,
    "{arch}.rope.dimension_count": 8,
    "{arch}.rope.dimension_count_swa": 4,
}
_GPT_NEOX = {
    "model_type": "gpt_neox",
    "vocab_size": 13,
    "hidden_size": 8,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "layer_norm_eps": 1e-5,
}
_OLMO3 = CONFIG | {
    "model_type": "olmo3",
    "num_hidden_layers": 5,
    "sliding_window": 4,
    "layer_types": _types(True, False, False, True, True),
    "rope_theta": None,
    "rope_parameters": {"full_attention": _YARN | {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e4}},
}
_MINISTRAL = _YARN | {"beta_fast": 24.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}

CASES = {
    "llama, multi-head": (CONFIG | {"num_key_value_heads": 2}, {}),
    "llama, multi-query, tied": (CONFIG | {"tie_word_embeddings": True}, {}),
    "llama, biases, wide heads": (CONFIG | {"attention_bias": True, "mlp_bias": True, "head_dim": 6}, {}),
    "exaone": (CONFIG | {"model_type": "exaone"}, {}),
    "llama, linear rope": (CONFIG | {"rope_scaling": _LINEAR}, _STORED_LINEAR),
    "mistral, windows": (CONFIG | {"model_type": "mistral", "sliding_window": 4}, {}),
    "qwen2": (CONFIG | {"model_type": "qwen2", "tie_word_embeddings": True}, {}),
    "qwen3": (CONFIG | {"model_type": "qwen3", "head_dim": 6, "rope_theta": 1e6}, {}),
    "gemma2": (
        _GEMMA | {"model_type": "gemma2", "attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0},
        {},
    ),
    "gemma3": (
        _GEMMA
        | {"model_type": "gemma3_text", "num_hidden_layers": 7}
        | {"rope_local_base_freq": 100.0, "rope_scaling": _LINEAR},
        _STORED_LINEAR,
    ),
    "gemma4, shared keys and values, layer inputs": (
        _GEMMA4
        | {"num_kv_shared_layers": 2, "use_double_wide_mlp": True}
        | {"hidden_size_per_layer_input": 6, "vocab_size_per_layer_input": 13},
        _STORED_GEMMA4
        | {"{arch}.attention.shared_kv_layers": 2, "{arch}.embedding_length_per_layer_input": 6}
        | {"{arch}.feed_forward_length": [12, 12, 12, 24, 24]},
    ),
    "gemma4, keys as values": (
        _GEMMA4 | {"attention_k_eq_v": True, "num_global_key_value_heads": 1, "hidden_size_per_layer_input": 0},
        _STORED_GEMMA4
        | {"{arch}.attention.head_count_kv": [2, 1, 2, 2, 1], "{arch}.embedding_length_per_layer_input": 0},
    ),
    "gemma4, experts beside the dense block": (
        _GEMMA4
        | {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 6}
        | {"hidden_size_per_layer_input": 0},
        _STORED_GEMMA4 | {"{arch}.embedding_length_per_layer_input": 0},
    ),
    "gpt2": (
        {"model_type": "gpt2", "vocab_size": 13, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 32}
        | {"n_inner": 20, "layer_norm_epsilon": 1e-3},
        {"{arch}.feed_forward_length": 20},
    ),
    "gpt_neox": (
        _GPT_NEOX | {"use_parallel_residual": True, "rotary_pct": 0.5},
        {"{arch}.rope.dimension_count": 2, "{arch}.use_parallel_residual": True},
    ),
    "gpt_neox, sequential": (
        _GPT_NEOX | {"use_parallel_residual": False, "rotary_emb_base": 500.0, "rotary_pct": 1.0},
        {"{arch}.use_parallel_residual": False},
    ),
    "gpt_oss": (
        GPT_OSS | {"sliding_window": 4, "num_hidden_layers": 3, "rope_scaling": _YARN | {"truncate": False}},
        _STORED_YARN | {"{arch}.expert_feed_forward_length": 12},
    ),
    "gpt_oss, rope without scaling": (
        GPT_OSS | {"sliding_window": 4, "rope_parameters": {"rope_type": "default"}, "tie_word_embeddings": True},
        {"{arch}.expert_feed_forward_length": 12},
    ),
    "ministral3": (
        CONFIG | {"model_type": "ministral3", "head_dim": 6, "rope_scaling": _MINISTRAL},
        _STORED_YARN
        | _scaling(yarn_log_multiplier=1.0, yarn_beta_fast=24.0)
        | {"{arch}.attention.temperature_scale": 0.1},
    ),
    "mixtral": (CONFIG | {"model_type": "mixtral", "num_local_experts": 3, "num_experts_per_tok": 2}, {}),
    "olmoe": (CONFIG | {"model_type": "olmoe", "num_experts": 3, "num_experts_per_tok": 2}, {}),
    "olmo2": (CONFIG | {"model_type": "olmo2"}, {}),
    "olmo3": (
        _OLMO3,
        _STORED_YARN
        | {"{arch}.attention.sliding_window_pattern": [True, False, False, True, True], "{arch}.rope.freq_base": 1e4},
    ),
    "phi3": (CONFIG | {"model_type": "phi3", "tie_word_embeddings": False, "sliding_window": 8}, {}),
    "phi3, longrope of a part of a head": (
        CONFIG
        | {"model_type": "phi3", "num_attention_heads": 1, "partial_rotary_factor": 0.5}
        | {"original_max_position_embeddings": 16, "rope_scaling": LONGROPE},
        _scaling(type="longrope", original_context_length=16, attn_factor=1.25) | {"{arch}.rope.dimension_count": 4},
    ),
    "qwen2_moe": (
        CONFIG
        | {"model_type": "qwen2_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 6}
        | {"shared_expert_intermediate_size": 10},
        {},
    ),
    "qwen3_moe": (
        CONFIG
        | {"model_type": "qwen3_moe", "head_dim": 6, "norm_topk_prob": True}
        | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 6},
        {"{arch}.expert_gating_func": 1},
    ),
    "smollm3": (CONFIG | {"model_type": "smollm3", "num_hidden_layers": 5, "tie_word_embeddings": True}, {}),
}
