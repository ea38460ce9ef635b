"""Small configs of every family that together cover every branch of the family's code."""

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 8.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "short_factor": [1.0, 1.1, 1.5],
    "long_factor": [1.0, 2.0, 5.0],
    "partial_rotary_factor": 0.75,  # of heads of 8: 3 pairs
}
PLAIN = {"rope_type": "default", "rope_theta": 500.0}
LENGTH = 48  # tokens: three times the original context of LLAMA3, and several windows

_LLAMA_LIKE = {
    "vocab_size": 41,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rope_parameters": PLAIN,
}
_HEAD = {"head_dim": 8}
_SPLIT_ROPE = {
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
    }
}
# Queries of Ministral 3 are scaled after the original context; rope_parameters hold the scaling.
_SCALED = {"llama_4_scaling_beta": 0.5}
_MINISTRAL3 = _LLAMA_LIKE | _HEAD | {"rope_parameters": YARN | _SCALED | {"mscale": 1.0, "mscale_all_dim": 0.5}}
_GEMMA3 = _LLAMA_LIKE | _HEAD | _SPLIT_ROPE | {"sliding_window": 5, "sliding_window_pattern": 2}

_GEMMA4 = _LLAMA_LIKE | {
    "num_hidden_layers": 5,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "global_head_dim": 8,
    "vocab_size_per_layer_input": 43,
    "hidden_size_per_layer_input": 6,
    "sliding_window": 5,
    "layer_types": [
        "sliding_attention",
        "full_attention",
        "sliding_attention",
        "sliding_attention",
        "full_attention",
    ],
    "num_kv_shared_layers": 2,
    "use_double_wide_mlp": True,
    "final_logit_softcapping": 3.0,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        "full_attention": {"rope_type": "proportional", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
    },
}
GEMMA4_EXPERTS = {"enable_moe_block": True, "num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 16}
_GEMMA4_WIDE = _GEMMA4 | {
    "num_key_value_heads": 4,
    "num_global_key_value_heads": 2,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "use_bidirectional_attention": "vision",
}

_DELTA_NET = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
    "full_attention_interval": 2,
}
_QWEN3_5 = _LLAMA_LIKE | _HEAD | _DELTA_NET
_VISION_TOWER = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 1, "out_hidden_size": 32}
_SHARED_EXPERT = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 12}
_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2}

_QWEN3_5_MOE = _QWEN3_5 | _EXPERTS | _SHARED_EXPERT

_BIASED_EXPERTS = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 16,
    "n_shared_experts": 2,
    "routed_scaling_factor": 1.5,
}

_LLAMA4 = (
    _LLAMA_LIKE
    | _HEAD
    | {
        "num_hidden_layers": 5,
        "intermediate_size": 16,
        "intermediate_size_mlp": 40,
        "num_local_experts": 8,
        "attention_chunk_size": 7,
        "floor_scale": 6,
    }
)

# Base config of each model type; the cases below change it.
SMALL = {
    "llama": _LLAMA_LIKE,
    "exaone": _LLAMA_LIKE,
    "internlm3": _LLAMA_LIKE | _HEAD,
    "iquestcoder": _LLAMA_LIKE | _HEAD,
    "mistral": _LLAMA_LIKE,
    "qwen2": _LLAMA_LIKE,
    "qwen3": _LLAMA_LIKE | _HEAD,
    "qwen2_moe": _LLAMA_LIKE | _EXPERTS | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 24},
    "qwen3_moe": _LLAMA_LIKE | _HEAD | _EXPERTS | {"moe_intermediate_size": 16},
    "mixtral": _LLAMA_LIKE | {"num_local_experts": 4},
    "llama4_text": _LLAMA4,
    "llama4": {
        "text_config": _LLAMA4,
        "vision_config": {
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "image_size": 16,
            "patch_size": 8,
            "vision_output_dim": 8,
            "projector_input_dim": 8,
            "projector_output_dim": 8,
        },
    },
    "olmoe": _LLAMA_LIKE | _EXPERTS,
    "qwen3_5_text": _QWEN3_5,
    "qwen3_5": {"text_config": _QWEN3_5, "vision_config": _VISION_TOWER},
    "qwen3_5_moe_text": _QWEN3_5_MOE,
    "qwen3_5_moe": {"text_config": _QWEN3_5_MOE, "vision_config": _VISION_TOWER},
    "qwen3_next": _QWEN3_5_MOE,
    "flex_olmo": _LLAMA_LIKE | _EXPERTS,
    "glm4_moe": _LLAMA_LIKE
    | _HEAD
    | _BIASED_EXPERTS
    | {"rope_parameters": PLAIN | {"partial_rotary_factor": 0.5}, "num_nextn_predict_layers": 0},
    "dots1": _LLAMA_LIKE | _HEAD | _BIASED_EXPERTS,
    "minimax_m2": _LLAMA_LIKE | _HEAD | {"num_local_experts": 8, "num_experts_per_tok": 3, "rotary_dim": 4},
    "gemma2": _LLAMA_LIKE
    | _HEAD
    | {"sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": _GEMMA3,
    "gemma3": {
        "text_config": _GEMMA3,
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "image_size": 16,
            "patch_size": 8,
        },
        "mm_tokens_per_image": 4,
    },
    "phi3": _LLAMA_LIKE,
    "gpt_oss": _LLAMA_LIKE
    | _HEAD
    | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 5}
    | {"rope_parameters": YARN | {"truncate": False, "beta_fast": 4.0}},
    "gpt_neox": {
        "vocab_size": 41,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "rope_parameters": PLAIN,
    },
    "gemma4_text": _GEMMA4,
    "gemma4": {
        "text_config": _GEMMA4,
        "vision_config": None,
        "audio_config": None,
        "image_token_id": 3,
        "audio_token_id": 7,
        "video_token_id": 45,
    },
    "gemma4_unified_text": {name: x for name, x in _GEMMA4_WIDE.items() if "per_layer_input" not in name},
    "gpt2": {"vocab_size": 41, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128},
    "olmo2": _LLAMA_LIKE,
    "olmo3": _LLAMA_LIKE
    | {"rope_parameters": {"sliding_attention": PLAIN, "full_attention": YARN}}
    | {"sliding_window": 5},
    "smollm3": _LLAMA_LIKE | {"no_rope_layer_interval": 2},
    "ministral": _LLAMA_LIKE | _HEAD | {"sliding_window": 5},
    "ministral3": _MINISTRAL3,
    "mistral3": {
        "text_config": _MINISTRAL3 | {"model_type": "ministral3"},
        "vision_config": {
            "model_type": "pixtral",
            "hidden_size": 8,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "head_dim": 8,
            "image_size": 16,
            "patch_size": 8,
        },
    },
}

# Whole config.json of a model with an image encoder; its image token is the first beyond the vocabulary.
SEEING = {
    "model_type": "mllama",
    "image_token_index": 41,
    "text_config": {
        "vocab_size": 41,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "cross_attention_layers": [1, 3],
    },
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 12,
        "patch_size": 4,
        "intermediate_layers_indices": [0],
        "vision_output_dim": 32,
    },
}

_WINDOWS = {"use_sliding_window": True, "sliding_window": 8}

# Changes of the base config by (model type, name of the case).
CASES = {
    ("llama", "multi-head, untied"): {"num_key_value_heads": 4},
    ("llama", "multi-query, tied, scaled rope"): {
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "rope_parameters": LLAMA3,
    },
    ("llama", "grouped, scaled rope"): {"rope_parameters": LLAMA3},
    ("llama", "biases"): {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3},
    ("llama", "heads wider than the stream"): {"head_dim": 16, "num_key_value_heads": 1, "vocab_size": 11},
    ("llama", "gelu, linear rope"): {"hidden_act": "gelu", "rope_parameters": LINEAR},
    ("exaone", "names of its own, scaled rope"): {"rope_parameters": LLAMA3},
    ("internlm3", "biases"): {"attention_bias": True, "mlp_bias": True},
    ("iquestcoder", "tied"): {"tie_word_embeddings": True},
    ("mistral", "windows"): {"sliding_window": 5},
    ("mistral", "no windows"): {"sliding_window": None, "head_dim": 16, "tie_word_embeddings": True},
    ("mistral", "multi-query windows of one"): {"sliding_window": 1, "num_key_value_heads": 1},
    ("qwen2", "no windows"): {"tie_word_embeddings": True},
    ("qwen2", "windows in the last layers"): {**_WINDOWS, "max_window_layers": 1},
    ("qwen2", "windows in every second layer"): {
        **_WINDOWS,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "num_key_value_heads": 4,
    },
    ("qwen3", "no windows"): {"tie_word_embeddings": True, "head_dim": 16},
    ("qwen3", "biases, windows in the last layers"): {**_WINDOWS, "max_window_layers": 2, "attention_bias": True},
    ("qwen3", "multi-query, windows everywhere"): {**_WINDOWS, "max_window_layers": 0, "num_key_value_heads": 1},
    ("qwen2_moe", "as published"): {},
    ("qwen2_moe", "a dense layer, windows in every second layer, no biases, normalised, tied"): {
        **_WINDOWS,
        "mlp_only_layers": [1],
        "qkv_bias": False,
        "norm_topk_prob": True,
        "tie_word_embeddings": True,
        "num_key_value_heads": 4,
    },
    ("qwen2_moe", "every second layer, windows in the first, all experts"): {
        **_WINDOWS,
        "num_hidden_layers": 5,
        "decoder_sparse_step": 2,
        "max_window_layers": 1,
        "num_experts_per_tok": 8,
        "num_key_value_heads": 1,
        "layer_types": None,
    },
    ("qwen3_moe", "as published"): {"norm_topk_prob": True},
    ("qwen3_moe", "every second layer, scores as they are"): {
        "num_hidden_layers": 5,
        "decoder_sparse_step": 2,
        "num_experts": 6,
        "num_key_value_heads": 1,
    },
    ("qwen3_moe", "a dense layer, biases, windows, tied"): {
        "mlp_only_layers": [0],
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 8,
        "tie_word_embeddings": True,
        "norm_topk_prob": True,
        "num_experts_per_tok": 8,
    },
    ("mixtral", "as published"): {},
    ("mixtral", "windows, one expert of eight, tied"): {
        "sliding_window": 5,
        "num_local_experts": 8,
        "num_experts_per_tok": 1,
        "tie_word_embeddings": True,
        "head_dim": 16,
        "hidden_act": "gelu",
    },
    ("olmoe", "as published"): {},
    ("olmoe", "normalised scores, biases, tied, scaled rope"): {
        "norm_topk_prob": True,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "num_key_value_heads": 4,
        "rope_parameters": LLAMA3,
    },
    ("flex_olmo", "as published"): {},
    ("flex_olmo", "normalised scores, biases, tied"): {
        "norm_topk_prob": True,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "num_key_value_heads": 4,
    },
    ("glm4_moe", "as published"): {"use_qk_norm": True, "attention_bias": True},
    ("glm4_moe", "two dense layers, scores as they are, all of a head rotated, tied"): {
        "first_k_dense_replace": 2,
        "n_shared_experts": 1,
        "norm_topk_prob": False,
        "rope_parameters": LLAMA3 | {"partial_rotary_factor": 1.0},
        "tie_word_embeddings": True,
        "num_key_value_heads": 1,
    },
    ("dots1", "as published"): {"norm_topk_prob": True, "first_k_dense_replace": 1, "sliding_window": None},
    ("dots1", "windows in the last layers, biases, scores as they are, tied"): {
        "sliding_window": 5,
        "max_window_layers": 1,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "n_shared_experts": 1,
    },
    ("minimax_m2", "as published"): {},
    ("minimax_m2", "all of a head rotated, tied, scaled rope"): {
        "rotary_dim": None,
        "tie_word_embeddings": True,
        "num_key_value_heads": 4,
        "rope_parameters": LLAMA3,
    },
    ("llama4_text", "as published"): {},
    ("llama4_text", "dense layers, two experts, no norms, no tuning, biases, tied"): {
        "interleave_moe_layer_step": 2,
        "num_experts_per_tok": 2,
        "use_qk_norm": False,
        "attn_temperature_tuning": False,
        "attention_bias": True,
        "tie_word_embeddings": True,
        "num_key_value_heads": 4,
        "rope_parameters": LLAMA3 | {"low_freq_factor": 1.0, "high_freq_factor": 1.0},
    },
    ("llama4_text", "listed layers, no chunks"): {
        "moe_layers": [0, 3],
        "no_rope_layers": [0, 1, 1, 0, 1],
        "attention_chunk_size": None,
        "num_key_value_heads": 1,
        "attn_scale": 0.3,
    },
    ("llama4", "with a vision tower"): {},
    ("gpt_oss", "as published"): {"swiglu_limit": 0.3},
    ("gpt_oss", "full layers first, no biases of attention, another activation, tied"): {
        "num_hidden_layers": 5,
        "layer_types": [*["full_attention", "sliding_attention"] * 2, "sliding_attention"],
        "attention_bias": False,
        "swiglu_alpha": 0.7,
        "swiglu_limit": 0.1,
        "tie_word_embeddings": True,
        "num_key_value_heads": 4,
        "num_experts_per_tok": 4,
        "rope_parameters": PLAIN,
    },
    ("gemma2", "as published"): {"query_pre_attn_scalar": 13},
    ("gemma2", "biases, untied, full layers first"): {
        "attention_bias": True,
        "tie_word_embeddings": False,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        "num_hidden_layers": 4,
        "num_key_value_heads": 4,
    },
    ("gemma2", "multi-query, no caps"): {
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "hidden_activation": "gelu",
    },
    ("qwen3_5_text", "as published"): {},
    ("qwen3_5_text", "biases, tied, a value head for each key head, gelu, attention first"): {
        "attention_bias": True,
        "tie_word_embeddings": True,
        "linear_num_key_heads": 4,
        "linear_value_head_dim": 8,
        "linear_conv_kernel_dim": 2,
        "hidden_act": "gelu",
        "layer_types": ["full_attention", "linear_attention", "linear_attention"],
        "rope_parameters": YARN | {"partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0], "mrope_interleaved": True},
    },
    ("qwen3_5", "with an image encoder"): {},
    ("qwen3_5_moe_text", "as published"): {},
    ("qwen3_5_moe_text", "biases, tied, three experts, scaled rope"): {
        "attention_bias": True,
        "tie_word_embeddings": True,
        "num_experts_per_tok": 3,
        "rope_parameters": LLAMA3,
    },
    ("qwen3_5_moe", "with an image encoder"): {},
    ("qwen3_next", "as published"): {},
    ("qwen3_next", "dense layers, scores as they are, a value head for each key head, tied"): {
        "mlp_only_layers": [2],
        "norm_topk_prob": False,
        "linear_num_key_heads": 4,
        "num_hidden_layers": 4,
        "tie_word_embeddings": True,
        "attention_bias": True,
    },
    ("gemma3_text", "as published"): {"query_pre_attn_scalar": 13},
    ("gemma3_text", "two periods and a tail"): {"num_hidden_layers": 5, "num_key_value_heads": 1},
    ("gemma3_text", "biases, untied, capped logits, windows of 8"): {
        "attention_bias": True,
        "tie_word_embeddings": False,
        "final_logit_softcapping": 3.0,
        "sliding_window": 8,
        "num_key_value_heads": 4,
    },
    ("gemma3", "with a vision tower"): {},
    ("phi3", "longrope, beyond its original context"): {
        "tie_word_embeddings": True,
        "original_max_position_embeddings": 16,
        "rope_parameters": LONGROPE,
    },
    ("phi3", "longrope, within its original context"): {
        "num_key_value_heads": 4,
        "original_max_position_embeddings": LENGTH,
        "rope_parameters": LONGROPE,
    },
    ("phi3", "multi-query windows, gelu"): {"num_key_value_heads": 1, "sliding_window": 5, "hidden_act": "gelu"},
    ("gpt_neox", "as published"): {},
    ("gpt_neox", "one after the other, no biases"): {
        "use_parallel_residual": False,
        "attention_bias": False,
        "rope_parameters": PLAIN | {"partial_rotary_factor": 1.0},
    },
    ("gpt_neox", "tied, an odd number of dimensions rotated"): {
        "tie_word_embeddings": True,
        "rope_parameters": LINEAR | {"partial_rotary_factor": 0.4},
        "hidden_act": "gelu_fast",
        "layer_norm_eps": 1e-3,
    },
    ("gemma4_text", "shared keys and values, layer inputs"): {},
    ("gemma4_text", "keys as values, more key heads in windows, a period and a tail"): _GEMMA4_WIDE,
    ("gemma4_text", "experts, keys as values"): _GEMMA4_WIDE | GEMMA4_EXPERTS,
    ("gemma4_text", "experts, shared keys and values, two widths, layer inputs"): GEMMA4_EXPERTS
    | {"num_experts": 3, "top_k_experts": 3},
    ("gemma4_text", "full layers only, one width"): {
        "layer_types": ["full_attention"] * 5,
        "head_dim": 8,
        "num_kv_shared_layers": 4,
        "sliding_window": 8,
        "rope_parameters": {"full_attention": LINEAR},
    },
    ("gemma4_text", "keys as values that are shared, biases, untied"): {
        "attention_k_eq_v": True,
        "num_global_key_value_heads": 2,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "num_kv_shared_layers": 3,
        "use_double_wide_mlp": False,
        "final_logit_softcapping": None,
        "hidden_activation": "gelu",
        "rope_parameters": {"sliding_attention": PLAIN, "full_attention": PLAIN | {"rope_type": "proportional"}},
    },
    ("gemma4", "tokens of images and sounds"): {},
    ("gemma4_unified_text", "keys as values"): {},
    ("gpt2", "as published"): {},
    ("gpt2", "wide and exact gelu"): {"n_inner": 80, "activation_function": "gelu", "layer_norm_epsilon": 1e-3},
    ("gpt2", "untied"): {
        "tie_word_embeddings": False,
        "activation_function": "gelu_pytorch_tanh",
        "reorder_and_upcast_attn": True,
        "n_head": 2,
    },
    ("olmo2", "grouped"): {},
    ("olmo2", "biases, multi-query, tied, scaled rope"): {
        "attention_bias": True,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
        "rope_parameters": LLAMA3,
    },
    ("olmo2", "multi-head, heads wider than the stream, gelu"): {
        "head_dim": 16,
        "num_key_value_heads": 4,
        "hidden_act": "gelu",
    },
    ("olmo3", "a period and a tail"): {"num_hidden_layers": 5},
    ("olmo3", "biases, multi-query, tied"): {
        "attention_bias": True,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
    },
    ("olmo3", "full layers first, two bases"): {
        **_SPLIT_ROPE,
        "layer_types": ["full_attention", "full_attention", "sliding_attention"],
        "num_key_value_heads": 4,
    },
    ("smollm3", "as published"): {"num_hidden_layers": 5, "no_rope_layer_interval": 4},
    ("smollm3", "windows without rope, biases, untied"): {
        **_WINDOWS,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
        "rope_parameters": LINEAR,
    },
    ("smollm3", "listed layers, windows with rope"): {
        **_WINDOWS,
        "no_rope_layers": [0, 1, 1, 0],
        "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        "num_key_value_heads": 1,
    },
    ("ministral", "windows in every second layer"): {
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "head_dim": 16,
        "tie_word_embeddings": True,
    },
    ("ministral", "windows everywhere"): {"num_key_value_heads": 1},
    ("ministral3", "as published"): {},
    ("ministral3", "windows, tied, multi-query, linear rope"): {
        "sliding_window": 5,
        "tie_word_embeddings": True,
        "num_key_value_heads": 1,
        "rope_parameters": LINEAR | _SCALED | {"original_max_position_embeddings": 7},
    },
    ("ministral3", "unscaled queries"): {
        "rope_parameters": LLAMA3 | {"llama_4_scaling_beta": 0.0},
        "num_key_value_heads": 4,
    },
    ("mistral3", "Ministral 3 with a vision tower"): {"tie_word_embeddings": False},
    ("mistral3", "Mistral with a vision tower"): {
        "text_config": _LLAMA_LIKE | _HEAD | {"model_type": "mistral", "sliding_window": 5}
    },
}
