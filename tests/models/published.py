"""config.json files of the published sizes, as the hub serves them."""

from jaxtrace.models import longrope

LLAMA3 = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": 128256,
}
LLAMA32 = LLAMA3 | {"rope_scaling": LLAMA3["rope_scaling"] | {"factor": 32.0}, "tie_word_embeddings": True}

MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.34.0.dev0",
    "use_cache": True,
    "vocab_size": 32000,
}

QWEN25 = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 131072,
    "model_type": "qwen2",
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.1",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 152064,
}

QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 40960,
    "model_type": "qwen3",
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}

QWEN35_TEXT = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_output_gate": True,
    "dtype": "bfloat16",
    "eos_token_id": 248044,
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_value_head_dim": 128,
    "mamba_ssm_dtype": "float32",
    "max_position_embeddings": 262144,
    "mlp_only_layers": [],
    "model_type": "qwen3_5_text",
    "mtp_num_hidden_layers": 1,
    "mtp_use_dedicated_embeddings": False,
    "rms_norm_eps": 1e-06,
    "rope_parameters": {
        "mrope_interleaved": True,
        "mrope_section": [11, 11, 10],
        "partial_rotary_factor": 0.25,
        "rope_theta": 10000000,
        "rope_type": "default",
    },
    "use_cache": True,
    "vocab_size": 248320,
}
QWEN35 = {
    "architectures": ["Qwen3_5ForConditionalGeneration"],
    "image_token_id": 248056,
    "model_type": "qwen3_5",
    "tie_word_embeddings": False,
    "transformers_version": "4.57.0.dev0",
    "video_token_id": 248057,
    "vision_config": {
        "deepstack_visual_indexes": [],
        "depth": 27,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1152,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 4304,
        "model_type": "qwen3_5",
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "vision_end_token_id": 248054,
    "vision_start_token_id": 248053,
}


def qwen35(layers, values, **changes):
    """Return a Qwen3.5 config: sizes of the text part, and the number of value heads of its delta nets."""
    types = ["linear_attention" if (i + 1) % 4 else "full_attention" for i in range(layers["num_hidden_layers"])]
    text = QWEN35_TEXT | layers | {"layer_types": types, "linear_num_value_heads": values} | changes
    return QWEN35 | {"text_config": text} | changes


def qwen35_moe(layers, values, number, chosen, feed_forward):
    """Return a Qwen3.5-MoE config: as `qwen35`, and the sizes of the experts."""
    sizes = {"moe_intermediate_size": feed_forward, "num_experts": number, "num_experts_per_tok": chosen}
    sizes |= {"model_type": "qwen3_5_moe_text", "router_aux_loss_coef": 0.001}
    sizes |= {"output_router_logits": False, "shared_expert_intermediate_size": feed_forward}
    config = qwen35(layers | sizes, values)
    return config | {"architectures": ["Qwen3_5MoeForConditionalGeneration"], "model_type": "qwen3_5_moe"}


QWEN3_NEXT = {
    "architectures": ["Qwen3NextForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "decoder_sparse_step": 1,
    "eos_token_id": 151645,
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 5120,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "max_position_embeddings": 262144,
    "mlp_only_layers": [],
    "model_type": "qwen3_next",
    "moe_intermediate_size": 512,
    "norm_topk_prob": True,
    "num_attention_heads": 16,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "num_hidden_layers": 48,
    "num_key_value_heads": 2,
    "output_router_logits": False,
    "partial_rotary_factor": 0.25,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000000,
    "router_aux_loss_coef": 0.001,
    "shared_expert_intermediate_size": 512,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.0.dev0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}

QWEN3_MOE = QWEN3 | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "output_router_logits": False,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001,
}

QWEN2_MOE = QWEN25 | {
    "architectures": ["Qwen2MoeForCausalLM"],
    "decoder_sparse_step": 1,
    "model_type": "qwen2_moe",
    "norm_topk_prob": False,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "vocab_size": 151936,
}

MIXTRAL = MISTRAL | {
    "architectures": ["MixtralForCausalLM"],
    "attention_dropout": 0.0,
    "model_type": "mixtral",
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
    "output_router_logits": False,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.02,
    "sliding_window": None,
    "transformers_version": "4.36.0.dev0",
}

OLMOE = {
    "architectures": ["OlmoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "clip_qkv": None,
    "eos_token_id": 50279,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 1024,
    "max_position_embeddings": 4096,
    "model_type": "olmoe",
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 16,
    "num_key_value_heads": 16,
    "output_router_logits": False,
    "pad_token_id": 1,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.01,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0.dev0",
    "use_cache": True,
    "vocab_size": 50304,
}

GLM_45 = {
    "architectures": ["Glm4MoeForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.0,
    "eos_token_id": [151329, 151336, 151338],
    "first_k_dense_replace": 1,
    "head_dim": 128,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 131072,
    "model_type": "glm4_moe",
    "moe_intermediate_size": 1408,
    "n_group": 1,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_experts_per_tok": 8,
    "num_key_value_heads": 8,
    "num_nextn_predict_layers": 1,
    "pad_token_id": 151329,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "routed_scaling_factor": 1.0,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.54.0",
    "use_cache": True,
    "use_qk_norm": False,
    "vocab_size": 151552,
}


DOTS_1 = {
    "architectures": ["Dots1ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "eos_token_id": 151645,
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 10944,
    "max_position_embeddings": 32768,
    "max_window_layers": 62,
    "model_type": "dots1",
    "moe_intermediate_size": 1408,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": 128,
    "n_shared_experts": 2,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 62,
    "num_key_value_heads": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "noaux_tc",
    "sliding_window": None,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.46.3",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 152064,
}

MINIMAX_M2 = {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_minimax_m2.MiniMaxM2Config"},
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "initializer_range": 0.02,
    "intermediate_size": 1536,
    "max_position_embeddings": 196608,
    "model_type": "minimax_m2",
    "mtp_transformer_layers": 1,
    "num_attention_heads": 48,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 62,
    "num_key_value_heads": 8,
    "num_local_experts": 256,
    "num_mtp_modules": 3,
    "output_router_logits": False,
    "qk_norm_type": "per_layer",
    "rms_norm_eps": 1e-06,
    "rope_theta": 5000000,
    "rotary_dim": 64,
    "router_aux_loss_coef": 0.001,
    "router_jitter_noise": 0.0,
    "scoring_func": "sigmoid",
    "shared_intermediate_size": 0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "transformers_version": "4.46.1",
    "use_cache": True,
    "use_mtp": True,
    "use_qk_norm": True,
    "use_routing_bias": True,
    "vocab_size": 200064,
}


def llama4(**text):
    """Return the multi-modal form of Llama 4."""
    return {
        "architectures": ["Llama4ForConditionalGeneration"],
        "boi_token_index": 200080,
        "eoi_token_index": 200081,
        "image_token_index": 200092,
        "model_type": "llama4",
        "text_config": {
            "attention_bias": False,
            "attention_chunk_size": 8192,
            "attention_dropout": 0.0,
            "bos_token_id": 200000,
            "eos_token_id": [200001, 200007, 200008],
            "for_llm_compressor": False,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 5120,
            "initializer_range": 0.02,
            "intermediate_size": 8192,
            "intermediate_size_mlp": 16384,
            "model_type": "llama4_text",
            "num_attention_heads": 40,
            "num_experts_per_tok": 1,
            "num_hidden_layers": 48,
            "num_key_value_heads": 8,
            "output_router_logits": False,
            "pad_token_id": 200018,
            "rms_norm_eps": 1e-05,
            "rope_theta": 500000.0,
            "router_aux_loss_coef": 0.001,
            "router_jitter_noise": 0.0,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": 202048,
            **text,
        },
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0.dev0",
        "vision_config": {"model_type": "llama4_vision_model", "num_hidden_layers": 34},
    }


def gpt_oss(layers, experts):
    """Return the config of a size of gpt-oss; layers with a window and full ones take turns."""
    yarn = {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "original_max_position_embeddings": 4096}
    return {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "eos_token_id": 200002,
        "experts_per_token": 4,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 2880,
        "initial_context_length": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 2880,
        "layer_types": ["sliding_attention", "full_attention"] * (layers // 2),
        "max_position_embeddings": 131072,
        "model_type": "gpt_oss",
        "num_attention_heads": 64,
        "num_experts_per_tok": 4,
        "num_hidden_layers": layers,
        "num_key_value_heads": 8,
        "num_local_experts": experts,
        "output_router_logits": False,
        "pad_token_id": 199999,
        "rms_norm_eps": 1e-05,
        "rope_scaling": yarn | {"rope_type": "yarn", "truncate": False},
        "rope_theta": 150000,
        "router_aux_loss_coef": 0.9,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "transformers_version": "4.55.0.dev0",
        "use_cache": True,
        "vocab_size": 201088,
    }


GEMMA2 = {
    "architectures": ["Gemma2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": 50.0,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": 1,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "max_position_embeddings": 8192,
    "model_type": "gemma2",
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "torch_dtype": "float32",
    "transformers_version": "4.42.4",
    "use_cache": True,
    "vocab_size": 256000,
}

GEMMA3_TEXT = {
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.50.0.dev0",
    "use_cache": True,
    "vocab_size": 262144,
}


def gemma3(**text):
    """Return the multi-modal form, whose text part holds only differences from transformers' defaults."""
    scaled = {"model_type": "gemma3_text", "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": 255999,
        "eoi_token_index": 256000,
        "eos_token_id": [1, 106],
        "image_token_index": 262144,
        "initializer_range": 0.02,
        "mm_tokens_per_image": 256,
        "model_type": "gemma3",
        "text_config": scaled | {"sliding_window": 1024} | text,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "vision_config": {
            "hidden_size": 1152,
            "image_size": 896,
            "intermediate_size": 4304,
            "model_type": "siglip_vision_model",
            "num_attention_heads": 16,
            "num_hidden_layers": 27,
            "patch_size": 14,
            "vision_use_head": False,
        },
    }


ROPE4 = {
    "full_attention": {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
    "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
}


def gemma4(period, layers, *, unified=False, **text):
    """Return the multi-modal form; every `period`-th layer has full attention."""
    name, title = ("gemma4_unified", "Gemma4Unified") if unified else ("gemma4", "Gemma4")
    common = {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attention_k_eq_v": False,
        "bos_token_id": 2,
        "dtype": "bfloat16",
        "enable_moe_block": False,
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "global_head_dim": 512,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size_per_layer_input": 0,
        "initializer_range": 0.02,
        "layer_types": [*(["sliding_attention"] * (period - 1)), "full_attention"] * (layers // period),
        "max_position_embeddings": 262144,
        "model_type": f"{name}_text",
        "moe_intermediate_size": None,
        "num_experts": None,
        "num_global_key_value_heads": None,
        "num_kv_shared_layers": 0,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "rope_parameters": ROPE4,
        "sliding_window": 1024,
        "tie_word_embeddings": True,
        "top_k_experts": None,
        "use_bidirectional_attention": "vision",
        "use_cache": True,
        "use_double_wide_mlp": False,
        "vocab_size": 262144,
        "vocab_size_per_layer_input": 262144,
    }
    return {
        "architectures": [f"{title}ForConditionalGeneration"],
        "audio_config": None,
        "audio_token_id": 258881,
        "boa_token_id": 256000,
        "boi_token_id": 255999,
        "dtype": "bfloat16",
        "eoa_token_index": 258883,
        "eoi_token_id": 258882,
        "eos_token_id": [1, 106],
        "image_token_id": 258880,
        "initializer_range": 0.02,
        "model_type": name,
        "text_config": common | text,
        "tie_word_embeddings": True,
        "transformers_version": "5.5.0.dev0",
        "video_token_id": 258884,
        "vision_config": {"model_type": f"{name}_vision"},
    }


SMALL4 = {
    "hidden_size_per_layer_input": 256,
    "max_position_embeddings": 131072,
    "sliding_window": 512,
    "use_bidirectional_attention": None,
}

GPT2 = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}

PHI3 = {
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
    },
    "bos_token_id": 1,
    "embd_pdrop": 0.0,
    "eos_token_id": 32000,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "model_type": "phi3",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "pad_token_id": 32000,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.2",
    "use_cache": True,
    "vocab_size": 32064,
}

PYTHIA = {
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.24.0",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}


def long(scaling, window=262144):
    """Return the attributes of a Phi with a long context."""
    return {"max_position_embeddings": 131072, "rope_scaling": scaling, "sliding_window": window}


SMOLLM3 = {
    "architectures": ["SmolLM3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128012,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "layer_types": ["full_attention"] * 36,
    "max_position_embeddings": 65536,
    "max_window_layers": 28,
    "mlp_bias": False,
    "model_type": "smollm3",
    "no_rope_layer_interval": 4,
    "no_rope_layers": [1, 1, 1, 0] * 9,
    "pad_token_id": 128004,
    "pretraining_tp": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 5000000.0,
    "sliding_window": None,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.54.0.dev0",
    "use_cache": False,
    "use_sliding_window": False,
    "vocab_size": 128256,
}

OLMO2 = {
    "architectures": ["Olmo2ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "eos_token_id": 100257,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 4096,
    "model_type": "olmo2",
    "pad_token_id": 100277,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 500000,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "transformers_version": "4.47.0.dev0",
    "use_cache": True,
    "vocab_size": 100352,
}


def olmo3(layers):
    """Return the fields that OLMo 3's sizes share; rope is scaled in full layers only."""
    yarn = {"attention_factor": 1.2079441541679836, "beta_fast": 32.0, "beta_slow": 1.0, "factor": 8.0}
    return OLMO2 | {
        "architectures": ["Olmo3ForCausalLM"],
        "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * (layers // 4),
        "max_position_embeddings": 65536,
        "model_type": "olmo3",
        "rope_scaling": yarn | {"original_max_position_embeddings": 8192, "rope_type": "yarn"},
        "sliding_window": 4096,
        "vocab_size": 100278,
    }


def ministral3(theta, tied, **text):
    """Return the multi-modal form of Ministral 3."""
    yarn = {"type": "yarn", "rope_type": "yarn", "factor": 16.0, "beta_fast": 32.0, "beta_slow": 1.0}
    yarn |= {"mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 16384}
    return {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "dtype": "bfloat16",
        "image_token_index": 10,
        "model_type": "mistral3",
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "spatial_merge_size": 2,
        "text_config": {
            "attention_dropout": 0.0,
            "head_dim": 128,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "max_position_embeddings": 262144,
            "model_type": "ministral3",
            "rms_norm_eps": 1e-05,
            "rope_parameters": yarn | {"llama_4_scaling_beta": 0.1, "rope_theta": theta},
            "sliding_window": None,
            "tie_word_embeddings": tied,
            "use_cache": True,
            "vocab_size": 131072,
            **text,
        },
        "transformers_version": "5.0.0.dev0",
        "vision_config": {
            "attention_dropout": 0.0,
            "head_dim": 64,
            "hidden_act": "silu",
            "hidden_size": 1024,
            "image_size": 1540,
            "initializer_range": 0.02,
            "intermediate_size": 4096,
            "model_type": "pixtral",
            "num_attention_heads": 16,
            "num_channels": 3,
            "num_hidden_layers": 24,
            "patch_size": 14,
            "rope_theta": 10000.0,
        },
        "vision_feature_layer": -1,
    }


def shape(embed, feed_forward, layers, heads, kv_heads=None):
    """Return sizes under the attribute names of most families."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    values = (embed, feed_forward, layers, heads, kv_heads)
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def gpt2_shape(embed, layers, heads):
    return {"n_embd": embed, "n_layer": layers, "n_head": heads}


PYTHIA_SIZES = {
    "14m": shape(128, 512, 6, 4),
    "31m": shape(256, 1024, 6, 8),
    "70m": shape(512, 2048, 6, 8),
    "160m": shape(768, 3072, 12, 12),
    "410m": shape(1024, 4096, 24, 16),
    "1b": shape(2048, 8192, 16, 8),
    "1.4b": shape(2048, 8192, 24, 16),
    "2.8b": shape(2560, 10240, 32, 32),
    "6.9b": shape(4096, 16384, 32, 32) | {"vocab_size": 50432},
    "12b": shape(5120, 20480, 36, 40) | {"vocab_size": 50688},
}

PUBLISHED = {
    "Meta-Llama-3-8B": LLAMA3 | shape(4096, 14336, 32, 32) | {"max_position_embeddings": 8192, "rope_scaling": None},
    "Llama-3.1-8B": LLAMA3 | shape(4096, 14336, 32, 32),
    "Llama-3.1-70B": LLAMA3 | shape(8192, 28672, 80, 64),
    "Llama-3.2-1B": LLAMA32 | shape(2048, 8192, 16, 32) | {"head_dim": 64},
    "Llama-3.2-3B": LLAMA32 | shape(3072, 8192, 28, 24) | {"head_dim": 128},
    "SmolLM2-135M-Instruct": LLAMA3
    | shape(576, 1536, 30, 9, 3)
    | {"is_llama_config": True, "max_position_embeddings": 8192, "rope_interleaved": False, "rope_scaling": None}
    | {"rope_theta": 100000, "tie_word_embeddings": True, "vocab_size": 49152},
    "Qwen3.5-0.8B": qwen35(shape(1024, 3584, 24, 8, 2), 16, tie_word_embeddings=True),
    "Qwen3.5-2B": qwen35(shape(2048, 6144, 24, 8, 2), 16, tie_word_embeddings=True),
    "Qwen3.5-4B": qwen35(shape(2560, 9216, 32, 16, 4), 32, tie_word_embeddings=True),
    "Qwen3.5-9B": qwen35(shape(4096, 12288, 32, 16, 4), 32),
    "Qwen3.5-27B": qwen35(shape(5120, 17408, 64, 24, 4), 48),
    "Qwen3.5-35B-A3B": qwen35_moe(shape(2048, None, 40, 16, 2), 32, 256, 8, 512),
    "Qwen3.5-122B-A10B": qwen35_moe(shape(3072, None, 48, 32, 2), 64, 256, 8, 1024),
    "Qwen3.5-397B-A17B": qwen35_moe(shape(4096, None, 60, 32, 2), 64, 512, 10, 1024),
    "Qwen3-Next-80B-A3B-Instruct": QWEN3_NEXT,
    "Qwen3-30B-A3B": QWEN3_MOE | shape(2048, 6144, 48, 32, 4) | {"max_window_layers": 48},
    "Qwen3-235B-A22B": QWEN3_MOE
    | shape(4096, 12288, 94, 64, 4)
    | {"max_window_layers": 94, "moe_intermediate_size": 1536},
    "Qwen1.5-MoE-A2.7B": QWEN2_MOE
    | shape(2048, 5632, 24, 16, 16)
    | {"moe_intermediate_size": 1408, "num_experts": 60, "num_experts_per_tok": 4, "max_window_layers": 21}
    | {"shared_expert_intermediate_size": 5632, "max_position_embeddings": 8192, "sliding_window": 32768},
    "Qwen2-57B-A14B": QWEN2_MOE
    | shape(3584, 18944, 28, 28, 4)
    | {"moe_intermediate_size": 2560, "num_experts": 64, "num_experts_per_tok": 8, "max_window_layers": 28}
    | {"shared_expert_intermediate_size": 20480, "sliding_window": 65536},
    "GLM-4.5-Air": GLM_45 | shape(4096, 10944, 46, 96),
    "GLM-4.5": GLM_45
    | shape(5120, 12288, 92, 96)
    | {"moe_intermediate_size": 1536, "n_routed_experts": 160, "first_k_dense_replace": 3}
    | {"routed_scaling_factor": 2.5, "use_qk_norm": True},
    "dots.llm1.base": DOTS_1,
    "MiniMax-M2": MINIMAX_M2,
    "Llama-4-Scout-17B-16E-Instruct": llama4(
        num_local_experts=16,
        interleave_moe_layer_step=1,
        max_position_embeddings=10485760,
        use_qk_norm=True,
        rope_scaling=LLAMA3["rope_scaling"] | {"factor": 16.0, "high_freq_factor": 1.0},
    ),
    "Llama-4-Maverick-17B-128E": llama4(
        num_local_experts=128,
        interleave_moe_layer_step=2,
        max_position_embeddings=1048576,
        use_qk_norm=False,
        rope_scaling=None,
        moe_layers=list(range(1, 48, 2)),
    ),
    "gpt-oss-20b": gpt_oss(24, 32),
    "gpt-oss-120b": gpt_oss(36, 128),
    "Mixtral-8x7B-v0.1": MIXTRAL,
    "Mixtral-8x22B-v0.1": MIXTRAL
    | shape(6144, 16384, 56, 48)
    | {"max_position_embeddings": 65536, "router_aux_loss_coef": 0.001},
    "OLMoE-1B-7B-0924": OLMOE,
    "Mistral-7B-v0.1": MISTRAL,
    "Mistral-7B-v0.3": MISTRAL
    | {"attention_dropout": 0.0, "rope_theta": 1000000.0, "sliding_window": None, "vocab_size": 32768},
    "Qwen2.5-0.5B": QWEN25
    | shape(896, 4864, 24, 14, 2)
    | {"max_window_layers": 24, "tie_word_embeddings": True, "use_mrope": False, "vocab_size": 151936}
    | {"max_position_embeddings": 32768, "sliding_window": 32768},
    "Qwen2.5-1.5B": QWEN25
    | shape(1536, 8960, 28, 12, 2)
    | {"max_window_layers": 28, "tie_word_embeddings": True, "use_mrope": False, "vocab_size": 151936},
    "Qwen2.5-3B": QWEN25
    | shape(2048, 11008, 36, 16, 2)
    | {"max_window_layers": 36, "tie_word_embeddings": True, "vocab_size": 151936}
    | {"max_position_embeddings": 32768, "sliding_window": 32768},
    "Qwen2.5-7B": QWEN25 | shape(3584, 18944, 28, 28, 4) | {"max_window_layers": 28},
    "Qwen2.5-14B": QWEN25 | shape(5120, 13824, 48, 40, 8) | {"max_window_layers": 48, "rms_norm_eps": 1e-05},
    "Qwen2.5-32B": QWEN25 | shape(5120, 27648, 64, 40, 8) | {"max_window_layers": 64, "rms_norm_eps": 1e-05},
    "Qwen2.5-72B": QWEN25 | shape(8192, 29568, 80, 64, 8) | {"max_window_layers": 80, "rms_norm_eps": 1e-05},
    "DeepSeek-R1-Distill-Qwen-1.5B": QWEN25
    | shape(1536, 8960, 28, 12, 2)
    | {"max_window_layers": 21, "rope_theta": 10000, "sliding_window": 4096}
    | {"use_mrope": False, "vocab_size": 151936},
    "Qwen3-0.6B": QWEN3 | shape(1024, 3072, 28, 16) | {"max_window_layers": 28, "tie_word_embeddings": True},
    "Qwen3-1.7B": QWEN3 | shape(2048, 6144, 28, 16) | {"max_window_layers": 28, "tie_word_embeddings": True},
    "Qwen3-4B": QWEN3 | shape(2560, 9728, 36, 32) | {"max_window_layers": 36, "tie_word_embeddings": True},
    "Qwen3-8B": QWEN3 | shape(4096, 12288, 36, 32) | {"max_window_layers": 36},
    "Qwen3-14B": QWEN3 | shape(5120, 17408, 40, 40) | {"max_window_layers": 40},
    "Qwen3-32B": QWEN3 | shape(5120, 25600, 64, 64) | {"max_window_layers": 64},
    "gemma-2-2b": GEMMA2 | shape(2304, 9216, 26, 8, 4),
    "gemma-2-9b": GEMMA2 | shape(3584, 14336, 42, 16, 8) | {"sliding_window_size": 4096},
    "gemma-2-27b": GEMMA2
    | shape(4608, 36864, 46, 32, 16)
    | {"head_dim": 128, "query_pre_attn_scalar": 144, "sliding_window_size": 4096},
    "gemma-3-270m": GEMMA3_TEXT
    | shape(640, 2048, 18, 4)
    | {"_sliding_window_pattern": 6, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3}
    | {"use_bidirectional_attention": False},
    "gemma-3-1b": GEMMA3_TEXT | shape(1152, 6912, 26, 4) | {"sliding_window_pattern": 6},
    "gemma-3-4b": gemma3(**shape(2560, 10240, 34, None)),
    "gemma-3-12b": gemma3(**shape(3840, 15360, 48, 16, 8)),
    "gemma-3-27b": gemma3(**shape(5376, 21504, 62, 32, 16), head_dim=128, query_pre_attn_scalar=168),
    "SmolLM3-3B": SMOLLM3 | shape(2048, 11008, 36, 16, 4),
    "OLMo-2-0425-1B": OLMO2 | shape(2048, 8192, 16, 16, 16),
    "OLMo-2-1124-7B": OLMO2 | shape(4096, 11008, 32, 32, 32),
    "OLMo-2-1124-13B": OLMO2 | shape(5120, 13824, 40, 40, 40),
    "OLMo-2-0325-32B": OLMO2 | shape(5120, 27648, 64, 40, 8),
    "Olmo-3-1025-7B": olmo3(32) | shape(4096, 11008, 32, 32, 32),
    "Olmo-3-1125-32B": olmo3(64) | shape(5120, 27648, 64, 40, 8),
    "Ministral-3-3B-Base-2512": ministral3(1e6, True, **shape(3072, 9216, 26, 32, 8)),
    "Ministral-3-8B-Base-2512": ministral3(1e6, False, **shape(4096, 14336, 34, 32, 8)),
    "Ministral-3-14B-Base-2512": ministral3(1e9, False, **shape(5120, 16384, 40, 32, 8)),
    "gemma-4-E2B": gemma4(
        5, 35, **shape(1536, 6144, 35, 8, 1), **SMALL4, num_kv_shared_layers=20, use_double_wide_mlp=True
    ),
    "gemma-4-E4B": gemma4(6, 42, **shape(2560, 10240, 42, 8, 2), **SMALL4, num_kv_shared_layers=18),
    "gemma-4-12B": gemma4(
        6, 48, unified=True, **shape(3840, 15360, 48, 16, 8), attention_k_eq_v=True, num_global_key_value_heads=1
    ),
    "gemma-4-26B-A4B": gemma4(
        6,
        30,
        **shape(2816, 2112, 30, 16, 8),
        attention_k_eq_v=True,
        num_global_key_value_heads=2,
        enable_moe_block=True,
        num_experts=128,
        top_k_experts=8,
        moe_intermediate_size=704,
    ),
    "gemma-4-31B": gemma4(6, 60, **shape(5376, 21504, 60, 32, 16), attention_k_eq_v=True, num_global_key_value_heads=4),
    "gpt2": GPT2 | gpt2_shape(768, 12, 12),
    "gpt2-medium": GPT2 | gpt2_shape(1024, 24, 16) | {"n_special": 0, "predict_special_tokens": True},
    "gpt2-large": GPT2 | gpt2_shape(1280, 36, 20),
    "gpt2-xl": GPT2 | gpt2_shape(1600, 48, 25) | {"output_past": True},
    "Phi-3-mini-4k-instruct": PHI3,
    "Phi-3-mini-128k-instruct": PHI3 | long(longrope.PHI_3_MINI),
    "Phi-3-medium-4k-instruct": PHI3 | shape(5120, 17920, 40, 40, 10),
    "Phi-3-medium-128k-instruct": PHI3
    | shape(5120, 17920, 40, 40, 10)
    | long(longrope.PHI_3_MEDIUM, 131072)
    | {"pad_token_id": None},
    "Phi-3.5-mini-instruct": PHI3 | long(longrope.PHI_35_MINI),
    "phi-4": PHI3
    | shape(5120, 17920, 40, 40, 10)
    | {"max_position_embeddings": 16384, "original_max_position_embeddings": 16384, "rope_theta": 250000}
    | {"bos_token_id": 100257, "eos_token_id": 100265, "pad_token_id": 100349, "vocab_size": 100352}
    | {"sliding_window": None},
    "Phi-4-mini-instruct": PHI3
    | shape(3072, 8192, 32, 24, 8)
    | long(longrope.PHI_4_MINI)
    | {"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False}
    | {"bos_token_id": 199999, "eos_token_id": 199999, "pad_token_id": 199999, "vocab_size": 200064}
    | {"partial_rotary_factor": 0.75, "tie_word_embeddings": True},
    **{f"pythia-{size}{data}": PYTHIA | sizes for size, sizes in PYTHIA_SIZES.items() for data in ("", "-deduped")},
    "gpt-neox-20b": {name: value for name, value in PYTHIA.items() if name != "use_parallel_residual"}
    | shape(6144, 24576, 44, 64)
    | {"attention_probs_dropout_prob": 0, "hidden_act": "gelu_fast", "hidden_dropout_prob": 0, "vocab_size": 50432},
}
