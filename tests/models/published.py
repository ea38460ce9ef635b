"""config.json files of the published sizes, as the hub serves them."""

from jaxtrace.models import longrope
from tests.models.published_configs import (
    GEMMA2,
    GEMMA3_TEXT,
    GPT2,
    LLAMA3,
    LLAMA32,
    MISTRAL,
    OLMO2,
    PHI3,
    PYTHIA,
    PYTHIA_SIZES,
    QWEN3,
    QWEN25,
    SMALL4,
    SMOLLM3,
    gemma3,
    gemma4,
    gpt2_shape,
    long,
    ministral3,
    olmo3,
    shape,
)
from tests.models.published_mixtures import (
    DOTS_1,
    GLM_45,
    MINIMAX_M2,
    MIXTRAL,
    OLMOE,
    QWEN2_MOE,
    QWEN3_MOE,
    QWEN3_NEXT,
    gpt_oss,
    llama4,
    qwen35,
    qwen35_moe,
)

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
