"""Values of config attributes that no family computes."""

import pytest

from tests.models.parsing import LONGROPE, SCALED, SCALED_QUERIES, refused

FULL = {"rope_theta": 5.0, "rope_type": "proportional", "partial_rotary_factor": 0.5}
LOCAL = {"rope_theta": 5.0}
TYPES = ("sliding_attention", "full_attention")
GEMMA4_REFUSED = [
    ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention='all'; jaxtrace supports None, 'vision'"),
    ({"num_kv_shared_layers": 6}, "num_kv_shared_layers=6; the layers before them must include"),
    ({"num_kv_shared_layers": 7}, "num_kv_shared_layers=7; the layers before them must include"),
    ({"num_kv_shared_layers": 1}, "num_kv_shared_layers=1; the layers before them must include"),  # the only full one
    ({"num_kv_shared_layers": -1}, "num_kv_shared_layers=-1, which must be a whole number"),
    ({"layer_types": ["chunked_attention"] * 6}, "supports a list of 6 of sliding_attention, full_attention"),
    ({"global_head_dim": None}, "head_dim=None, which must be a positive whole number"),
    ({"global_head_dim": 511}, "head_dim=511 and 4 key/value heads in layer 5, which do not fit"),
    (
        {"attention_k_eq_v": True, "num_global_key_value_heads": 3},
        "head_dim=512 and 3 key/value heads in layer 5, which do not fit",
    ),
    ({"per_layer_config": {"6": {}}}, "per_layer_config of 6; jaxtrace supports numbers of layers, from 0"),
    ({"per_layer_config": {"full_attention": {}}}, "per_layer_config of full_attention"),
    ({"per_layer_config": {"1": {"head_dim": 8}}}, "per_layer_config with other sizes in layer 1 than in earlier"),
    ({"per_layer_config": {"5": {"skip": ["mlp"]}}}, "skip=['mlp']"),
    ({"per_layer_config": {"5": {"intermediate_size": 8}}}, "intermediate_size=8"),
    ({"per_layer_config": {"5": 8}}, "per_layer_config=8, which must be an object"),
    ({"sliding_window": None}, "sliding_window=None"),
    ({"rope_parameters": LOCAL}, "rope_parameters of rope_theta; jaxtrace supports one entry per layer type"),
    ({"rope_parameters": {"full_attention": FULL}}, "rope_parameters of full_attention; jaxtrace supports"),
    ({"rope_parameters": {"full_attention": {}, "sliding_attention": LOCAL}}, "rope_theta=None"),
    ({"rope_parameters": {"full_attention": None, "sliding_attention": LOCAL}}, "rope_theta=None"),
    (
        {"rope_parameters": {"full_attention": FULL | {"rope_type": "default"}, "sliding_attention": LOCAL}},
        "partial_rotary_factor=0.5; jaxtrace supports 1.0 here",
    ),
    (
        {"rope_parameters": {"full_attention": FULL | {"partial_rotary_factor": 1.5}, "sliding_attention": LOCAL}},
        "partial_rotary_factor=1.5; jaxtrace supports 1.0 here",
    ),
    (
        {"rope_parameters": {"full_attention": LOCAL | {"rope_type": "dynamic", "factor": 2.0}} | {TYPES[0]: LOCAL}},
        "in full_attention, which transformers does not compute there",
    ),
    ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "does not support: rope_scaling"),
    ({"rope_theta": 5.0}, "does not support: rope_theta=5.0"),
]


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"model_type": "llama", "rope_interleaved": True}, "rope_interleaved=True; jaxtrace supports False"),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window=0, which must be a positive whole number"),
        ({"model_type": "mistral", "hidden_act": "relu"}, "hidden_act='relu'; jaxtrace supports 'silu', 'gelu'"),
        ({"model_type": "qwen2", "use_mrope": True}, "use_mrope=True"),
        ({"model_type": "qwen2", "max_window_layers": -1}, "max_window_layers=-1"),
        (
            {"model_type": "qwen2", "num_hidden_layers": 1, "layer_types": ["sliding_attention"]},
            "layer_types=['sliding_attention']; jaxtrace supports a list of 1 of full_attention",
        ),
        ({"model_type": "qwen3", "layer_types": ["full_attention"]}, "supports a list of 32 of full_attention"),
        ({"model_type": "qwen3", "layer_types": [["full_attention"]] * 32}, "a list of 32 of full_attention"),
        ({"model_type": "gemma2", "use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ({"model_type": "gemma2", "sliding_window_size": 8}, "sliding_window_size=8; jaxtrace supports 4096"),
        ({"model_type": "gemma2", "hidden_act": "gelu"}, "hidden_act='gelu'; jaxtrace supports 'gelu_pytorch_tanh'"),
        ({"model_type": "gemma2", "attn_logit_softcapping": "50"}, "attn_logit_softcapping='50'"),
        ({"model_type": "gemma3_text", "rope_parameters": {"rope_type": "default"}}, "rope_parameters of rope_type"),
        *(
            (
                {"model_type": "gemma3_text", "rope_parameters": {name: junk}},
                f"{name}={junk!r}, which must be an object",
            )
            for name in ("sliding_attention", "full_attention")
            for junk in ("x", 0, "", [], False)
        ),
        ({"model_type": "gemma3_text", "num_hidden_layers": 10**30}, "which is above 10000"),
        ({"model_type": "gpt2", "n_layer": 10**30}, "which is above 10000"),
        ({"model_type": "qwen2", "num_hidden_layers": 10_001}, "num_hidden_layers=10001, which is above 10000"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        ({"model_type": "gemma3", "text_config": {"final_logit_softcapping": 30.0}}, "final_logit_softcapping=30.0"),
        ({"model_type": "gemma3", "text_config": {"tie_word_embeddings": False}}, "text_config has False"),
        ({"model_type": "gemma3", "text_config": {"v_head_dim": 2}}, "does not support: v_head_dim=2"),
        *(
            ({"model_type": kind, "num_hidden_layers": 6, **changed}, part)
            for kind in ("gemma4_text", "gemma4_unified_text")
            for changed, part in GEMMA4_REFUSED
        ),
        ({"model_type": "gemma4_text", "vocab_size_per_layer_input": 8}, "vocab_size_per_layer_input=8, which must be"),
        ({"model_type": "gemma4_unified_text", "hidden_size_per_layer_input": 8}, "hidden_size_per_layer_input=8"),
        ({"model_type": "gemma4", "text_config": {"pad_token_id": None}}, "pad_token_id=None"),
        (
            {"model_type": "gemma4", "text_config": {"pad_token_id": 262_144}},
            "=262144, which must be below",
        ),
        ({"model_type": "gemma4", "text_config": {"tie_word_embeddings": False}}, "text_config has False"),
        ({"model_type": "llama", "sliding_window": 8, "use_sliding_window": True}, "support: sliding_window=8"),
        ({"model_type": "llama", "layer_types": ["full_attention", "sliding_attention"] * 16}, "support: layer_types"),
        ({"model_type": "mistral", "layer_types": ["full_attention"] * 32}, "a list of 32 of sliding_attention"),
        ({"model_type": "internlm3", "qkv_bias": True}, "qkv_bias=True and bias=False; they must be equal"),
        ({"model_type": "iquestcoder", "clip_qkv": 8.0}, "clip_qkv=8.0; jaxtrace supports None"),
        ({"model_type": "iquestcoder", "use_sliding_window": True}, "use_sliding_window=True"),
        (
            {"model_type": "gemma3_text", "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}},
            "truncate=False in full_attention, which transformers ignores there",
        ),
        ({"model_type": "phi3", "rope_scaling": SCALED}, "'llama3'; transformers' Phi-3 has 'default' and 'longrope'"),
        (
            {"model_type": "phi3", "rope_scaling": LONGROPE | {"long_factor": [1.0]}},
            "a long_factor of 1, which must be",
        ),
        ({"model_type": "gpt_neox", "rope_theta": 5.0}, "rope_theta=5.0; jaxtrace supports 10000.0"),
        ({"model_type": "gpt_neox", "partial_rotary_factor": 1.0}, "partial_rotary_factor=1.0; jaxtrace supports 0.25"),
        ({"model_type": "gpt_neox", "rotary_pct": None}, "rotary_pct=None, which must be a positive number"),
        ({"model_type": "gpt_neox", "rotary_pct": 1.5}, "partial_rotary_factor=1.5"),
        ({"model_type": "gpt_neox", "head_dim": 64}, "head_dim=64; jaxtrace supports 96"),
        ({"model_type": "gpt_neox", "num_attention_heads": 7}, "which is not a multiple of 7 attention heads"),
        ({"model_type": "gpt_neox", "hidden_act": "relu"}, "hidden_act='relu'"),
        ({"model_type": "olmo2", "clip_qkv": 8.0, "layer_types": ["sliding_attention"] * 32}, "support: layer_types"),
        ({"model_type": "olmo3", "rope_parameters": {"rope_type": "default"}}, "rope_parameters of rope_type"),
        ({"model_type": "olmo3", "sliding_window": None}, "sliding_window=None, which must be a positive whole number"),
        ({"model_type": "olmo3", "layer_types": ["chunked_attention"] * 32}, "a list of 32 of sliding_attention"),
        *(
            ({"model_type": "smollm3", "no_rope_layers": value}, "a list of at least 36 ones and zeros")
            for value in ([], [1] * 35, [2] * 36, [True] * 36, "1", {"0": 1})
        ),
        ({"model_type": "smollm3", "no_rope_layer_interval": 0}, "no_rope_layer_interval=0"),
        (
            {"model_type": "smollm3", "sliding_window": 8, "layer_types": ["sliding_attention"] * 36},
            "a list of 36 of full_attention",
        ),
        (
            {"model_type": "ministral", "sliding_window": None, "layer_types": ["sliding_attention"] * 32},
            "a list of 32 of full_attention",
        ),
        (
            {"model_type": "ministral3", "rope_parameters": {"rope_type": "default", "llama_4_scaling_beta": 0.1}},
            "original_max_position_embeddings=None, which must be a positive number",
        ),
        *(
            (
                {
                    "model_type": "ministral3",
                    "rope_parameters": {"rope_type": "default", **SCALED_QUERIES, "llama_4_scaling_beta": value},
                },
                f"llama_4_scaling_beta={value!r}, which must be a positive number",
            )
            for value in (None, "0.1", -1.0)
        ),
        ({"model_type": "mistral3", "text_config": {"model_type": "llama"}}, "text_config of model_type 'llama'"),
        ({"model_type": "mistral3", "text_config": {"model_type": []}}, "supports mistral and ministral3"),
        ({"model_type": "mistral3", "text_config": {"v_head_dim": 2}}, "does not support: v_head_dim=2"),
        ({"model_type": "mistral3", "sliding_window": 8}, "does not support: sliding_window=8"),
        ({"model_type": "qwen3_5_text", "linear_num_value_heads": 24}, "linear_num_value_heads=24, which is not a"),
        ({"model_type": "qwen3_5_text", "linear_conv_kernel_dim": 0}, "linear_conv_kernel_dim=0, which must be"),
        ({"model_type": "qwen3_5_text", "full_attention_interval": 0}, "full_attention_interval=0, which must be"),
        ({"model_type": "qwen3_5_text", "layer_types": ["linear_attention"]}, "a list of 32 of linear_attention, full"),
        (
            {"model_type": "qwen3_5", "text_config": {"attn_output_gate": False}},
            "attn_output_gate=False; jaxtrace",
        ),
        (
            {"model_type": "qwen3_5_text", "output_gate_type": "sigmoid"},
            "output_gate_type='sigmoid'; jaxtrace",
        ),
        ({"model_type": "qwen3_5_moe_text", "num_experts_per_tok": 300}, "which is above num_experts=256"),
        ({"model_type": "qwen3_5_moe_text", "shared_expert_intermediate_size": 0}, "which must be a positive whole"),
        ({"model_type": "gpt2", "rope_theta": 100.0}, "does not support: rope_theta=100.0"),
        ({"model_type": "gpt2", "head_dim": 32}, "head_dim=32; jaxtrace supports 64"),
        (
            {"model_type": "gpt2", "num_hidden_layers": 10**30},
            "n_layer=1000000000000000000000000000000, which is above",
        ),
        ({"model_type": "gpt2", "activation_function": "relu"}, "activation_function='relu'"),
        ({"model_type": "gpt2", "scale_attn_weights": False}, "scale_attn_weights=False"),
        ({"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
        ({"model_type": "gpt2", "n_head": 5}, "n_embd=768, which is not a multiple of 5 attention heads"),
    ],
    ids=str,
)
def test_unsupported_values_are_refused(config, part):
    refused(config, part)
