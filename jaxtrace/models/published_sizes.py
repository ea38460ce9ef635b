"""Published sizes of each family, as the attributes of config.json that differ from the family's defaults."""

from __future__ import annotations

from typing import Any

from jaxtrace.models import longrope
from jaxtrace.models.families import ministral3


def _shape(embed: int, feed_forward: int, layers: int, heads: int, kv_heads: int) -> dict[str, int]:
    return {
        "hidden_size": embed,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    }


def _rope_scaling(factor: float) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


_LLAMA = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
}
_LLAMA_31 = _LLAMA | {"rope_scaling": _rope_scaling(8.0)}
_LLAMA_32 = _LLAMA | {"rope_scaling": _rope_scaling(32.0), "tie_word_embeddings": True}


def _vision(image_size: int, **text: Any) -> dict[str, Any]:
    return {
        "model_type": "mllama",
        "text_config": {"rope_scaling": _rope_scaling(8.0), **text},
        "vision_config": {"image_size": image_size},
    }


_VISION_90B = _shape(8192, 28_672, 100, 64, 8) | {"cross_attention_layers": list(range(3, 100, 5))}

_GEMMA_3 = {
    "model_type": "gemma3_text",
    "vocab_size": 262_144,
    "max_position_embeddings": 32_768,
    "sliding_window": 512,
}


def _gemma_3(**text: Any) -> dict[str, Any]:
    settings = {"sliding_window": 1024, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    return {"model_type": "gemma3", "text_config": settings | text}


def _gemma_4(period: int, text: dict[str, Any], model_type: str = "gemma4") -> dict[str, Any]:
    layers = range(text["num_hidden_layers"])
    types = ["sliding_attention" if (i + 1) % period else "full_attention" for i in layers]
    return {"model_type": model_type, "text_config": text | {"final_logit_softcapping": 30.0, "layer_types": types}}


_GEMMA_4_LARGE = {
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "max_position_embeddings": 262_144,
    "sliding_window": 1024,
}

_SMOLLM_2 = {
    "model_type": "llama",
    "vocab_size": 49_152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100_000.0,
    "tie_word_embeddings": True,
}
_QWEN_25 = {"model_type": "qwen2", "rope_theta": 1_000_000.0}
_QWEN_25_TIED = _QWEN_25 | {"tie_word_embeddings": True}
_QWEN_25_LARGE = _QWEN_25 | {"vocab_size": 152_064, "max_position_embeddings": 131_072}
_QWEN_3 = {"model_type": "qwen3", "rope_theta": 1_000_000.0, "max_position_embeddings": 40_960}
_QWEN_2_MOE = {"model_type": "qwen2_moe", "rope_theta": 1_000_000.0}
_QWEN_3_MOE = _QWEN_3 | {"model_type": "qwen3_moe", "norm_topk_prob": True}
_QWEN_3_TIED = _QWEN_3 | {"tie_word_embeddings": True}


def _qwen_35(shape: dict[str, int], values: int, *, tied: bool = False, kind: str = "qwen3_5") -> dict[str, Any]:
    text = {"linear_num_value_heads": values, "max_position_embeddings": 262_144}
    rope = {"rope_type": "default", "rope_theta": 10_000_000, "partial_rotary_factor": 0.25}
    text_config = shape | text | {"rope_parameters": rope}
    return {"model_type": kind, "tie_word_embeddings": tied, "text_config": text_config}


def _qwen_35_moe(embed: int, layers: int, heads: int, values: int, *experts: int) -> dict[str, Any]:
    shape = {"hidden_size": embed, "num_hidden_layers": layers, "num_attention_heads": heads}
    names = "num_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size"
    sizes = dict(zip(names, (*experts, experts[-1]), strict=True))
    return _qwen_35(shape | sizes, values, kind="qwen3_5_moe")


_MISTRAL = {"model_type": "mistral", "max_position_embeddings": 32_768, "rms_norm_eps": 1e-5}


_GLM_45 = {"model_type": "glm4_moe", "head_dim": 128, "attention_bias": True, "rope_theta": 1_000_000.0}


def _llama_4(experts: int, context: int, **text: Any) -> dict[str, Any]:
    settings = {"num_local_experts": experts, "max_position_embeddings": context}
    return {"model_type": "llama4", "text_config": settings | text}


_PHI_3 = {"model_type": "phi3", "sliding_window": 2047}
_PHI_3_MEDIUM = _PHI_3 | _shape(5120, 17_920, 40, 40, 10)


def _long(scaling: dict[str, Any], window: int = 262_144) -> dict[str, Any]:
    return {"max_position_embeddings": 131_072, "rope_scaling": scaling, "sliding_window": window}


_OLMO_2 = {
    "model_type": "olmo2",
    "vocab_size": 100_352,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 500_000.0,
}
_OLMO_3 = {
    "model_type": "olmo3",
    "vocab_size": 100_278,
    "max_position_embeddings": 65_536,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "attention_factor": 1.2079441541679836,
        "beta_fast": 32,
        "beta_slow": 1,
    },
}


def _ministral_3(theta: float, tied: bool, **text: Any) -> dict[str, Any]:
    rope = ministral3.DEFAULTS["rope_parameters"] | {"rope_theta": theta}
    settings = {"model_type": "ministral3", "rope_parameters": rope, "tie_word_embeddings": tied}
    return {"model_type": "mistral3", "text_config": settings | text}


def _gpt2(embed: int, layers: int, heads: int) -> dict[str, Any]:
    return {"model_type": "gpt2", "n_embd": embed, "n_layer": layers, "n_head": heads}


def _gpt_neox(embed: int, layers: int, heads: int, vocab_size: int = 50_304) -> dict[str, Any]:
    shape = {"hidden_size": embed, "intermediate_size": 4 * embed, "num_hidden_layers": layers}
    return {"model_type": "gpt_neox", "vocab_size": vocab_size, "num_attention_heads": heads} | shape


_PYTHIA = {
    "14m": (14_067_712, _gpt_neox(128, 6, 4)),
    "31m": (30_494_720, _gpt_neox(256, 6, 8)),
    "70m": (70_426_624, _gpt_neox(512, 6, 8)),
    "160m": (162_322_944, _gpt_neox(768, 12, 12)),
    "410m": (405_334_016, _gpt_neox(1024, 24, 16)),
    "1b": (1_011_781_632, _gpt_neox(2048, 16, 8)),
    "1.4b": (1_414_647_808, _gpt_neox(2048, 24, 16)),
    "2.8b": (2_775_208_960, _gpt_neox(2560, 32, 32)),
    "6.9b": (6_857_302_016, _gpt_neox(4096, 32, 32, 50_432)),
    "12b": (11_846_072_320, _gpt_neox(5120, 36, 40, 50_688)),
}


# Sizes of each family: (hub id, parameters, config).
SIZES: dict[str, list[tuple[str, int, dict[str, Any]]]] = {
    "Llama 3, 3.1 and 3.2": [
        (
            "meta-llama/Meta-Llama-3-8B",
            8_030_261_248,
            _LLAMA | _shape(4096, 14_336, 32, 32, 8) | {"max_position_embeddings": 8192},
        ),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248, _LLAMA_31 | _shape(4096, 14_336, 32, 32, 8)),
        ("meta-llama/Llama-3.1-70B", 70_553_706_496, _LLAMA_31 | _shape(8192, 28_672, 80, 64, 8)),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400, _LLAMA_32 | _shape(2048, 8192, 16, 32, 8)),
        ("meta-llama/Llama-3.2-3B", 3_212_749_824, _LLAMA_32 | _shape(3072, 8192, 28, 24, 8)),
    ],
    "SmolLM2": [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008, _SMOLLM_2 | _shape(576, 1536, 30, 9, 3)),
    ],
    "Llama 3.2 Vision": [
        ("meta-llama/Llama-3.2-11B-Vision", 10_642_941_475, _vision(448)),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", 10_670_220_835, _vision(560)),
        ("meta-llama/Llama-3.2-90B-Vision", 88_593_355_323, _vision(560, **_VISION_90B)),
    ],
    "Gemma 2": [
        ("google/gemma-2-2b", 2_614_341_888, {"model_type": "gemma2"}),
        ("google/gemma-2-9b", 9_241_705_984, {"model_type": "gemma2"} | _shape(3584, 14_336, 42, 16, 8)),
        (
            "google/gemma-2-27b",
            27_227_128_320,
            {"model_type": "gemma2", "head_dim": 128, "query_pre_attn_scalar": 144} | _shape(4608, 36_864, 46, 32, 16),
        ),
    ],
    "Gemma 3, text part": [
        ("google/gemma-3-270m", 268_098_176, _GEMMA_3 | _shape(640, 2048, 18, 4, 1)),
        ("google/gemma-3-1b-pt", 999_885_952, _GEMMA_3 | _shape(1152, 6912, 26, 4, 1)),
        ("google/gemma-3-4b-pt", 3_880_263_168, _gemma_3(**_shape(2560, 10_240, 34, 8, 4))),
        ("google/gemma-3-12b-pt", 11_766_034_176, _gemma_3(**_shape(3840, 15_360, 48, 16, 8))),
        (
            "google/gemma-3-27b-pt",
            27_009_346_304,
            _gemma_3(**_shape(5376, 21_504, 62, 32, 16), head_dim=128, query_pre_attn_scalar=168),
        ),
    ],
    "Gemma 4, text part": [
        (
            "google/gemma-4-E2B",
            4_628_569_379,
            _gemma_4(5, _shape(1536, 6144, 35, 8, 1) | {"num_kv_shared_layers": 20, "use_double_wide_mlp": True}),
        ),
        (
            "google/gemma-4-E4B",
            7_463_013_418,
            _gemma_4(6, _shape(2560, 10_240, 42, 8, 2) | {"num_kv_shared_layers": 18}),
        ),
        (
            "google/gemma-4-12B",
            11_907_350_320,
            _gemma_4(
                6,
                _GEMMA_4_LARGE | _shape(3840, 15_360, 48, 16, 8) | {"num_global_key_value_heads": 1},
                "gemma4_unified",
            ),
        ),
        (
            "google/gemma-4-26B-A4B",
            25_233_141_790,
            _gemma_4(
                6,
                _GEMMA_4_LARGE
                | _shape(2816, 2112, 30, 16, 8)
                | {"num_global_key_value_heads": 2, "enable_moe_block": True}
                | {"num_experts": 128, "top_k_experts": 8, "moe_intermediate_size": 704},
            ),
        ),
        (
            "google/gemma-4-31B",
            30_697_345_340,
            _gemma_4(6, _GEMMA_4_LARGE | _shape(5376, 21_504, 60, 32, 16) | {"num_global_key_value_heads": 4}),
        ),
    ],
    "Qwen2.5 and DeepSeek-R1-Distill-Qwen": [
        ("Qwen/Qwen2.5-0.5B", 494_032_768, _QWEN_25_TIED | _shape(896, 4864, 24, 14, 2)),
        (
            "Qwen/Qwen2.5-1.5B",
            1_543_714_304,
            _QWEN_25_TIED | _shape(1536, 8960, 28, 12, 2) | {"max_position_embeddings": 131_072},
        ),
        ("Qwen/Qwen2.5-3B", 3_085_938_688, _QWEN_25_TIED | _shape(2048, 11_008, 36, 16, 2)),
        ("Qwen/Qwen2.5-7B", 7_615_616_512, _QWEN_25_LARGE | _shape(3584, 18_944, 28, 28, 4)),
        (
            "Qwen/Qwen2.5-14B",
            14_770_033_664,
            _QWEN_25_LARGE | _shape(5120, 13_824, 48, 40, 8) | {"rms_norm_eps": 1e-5},
        ),
        (
            "Qwen/Qwen2.5-32B",
            32_763_876_352,
            _QWEN_25_LARGE | _shape(5120, 27_648, 64, 40, 8) | {"rms_norm_eps": 1e-5},
        ),
        (
            "Qwen/Qwen2.5-72B",
            72_706_203_648,
            _QWEN_25_LARGE | _shape(8192, 29_568, 80, 64, 8) | {"rms_norm_eps": 1e-5},
        ),
        (
            "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
            1_777_088_000,
            {"model_type": "qwen2", "max_position_embeddings": 131_072} | _shape(1536, 8960, 28, 12, 2),
        ),
    ],
    "Qwen1.5 and Qwen2, experts": [
        ("Qwen/Qwen1.5-MoE-A2.7B", 14_315_784_192, _QWEN_2_MOE | {"max_position_embeddings": 8192}),
        (
            "Qwen/Qwen2-57B-A14B",
            57_408_658_944,
            _QWEN_2_MOE
            | {"max_position_embeddings": 131_072, "moe_intermediate_size": 2560, "num_experts": 64}
            | {"num_experts_per_tok": 8, "shared_expert_intermediate_size": 20_480}
            | _shape(3584, 18_944, 28, 28, 4),
        ),
    ],
    "Qwen3, dense": [
        ("Qwen/Qwen3-0.6B", 596_049_920, _QWEN_3_TIED | _shape(1024, 3072, 28, 16, 8)),
        ("Qwen/Qwen3-1.7B", 1_720_574_976, _QWEN_3_TIED | _shape(2048, 6144, 28, 16, 8)),
        ("Qwen/Qwen3-4B", 4_022_468_096, _QWEN_3_TIED | _shape(2560, 9728, 36, 32, 8)),
        ("Qwen/Qwen3-8B", 8_190_735_360, _QWEN_3 | _shape(4096, 12_288, 36, 32, 8)),
        ("Qwen/Qwen3-14B", 14_768_307_200, _QWEN_3 | _shape(5120, 17_408, 40, 40, 8)),
        ("Qwen/Qwen3-32B", 32_762_123_264, _QWEN_3 | _shape(5120, 25_600, 64, 64, 8)),
    ],
    "Qwen3.5, text part": [
        ("Qwen/Qwen3.5-0.8B", 752_393_024, _qwen_35(_shape(1024, 3584, 24, 8, 2), 16, tied=True)),
        ("Qwen/Qwen3.5-2B", 1_881_825_088, _qwen_35(_shape(2048, 6144, 24, 8, 2), 16, tied=True)),
        ("Qwen/Qwen3.5-4B", 4_205_751_296, _qwen_35(_shape(2560, 9216, 32, 16, 4), 32, tied=True)),
        ("Qwen/Qwen3.5-9B", 8_953_803_264, _qwen_35(_shape(4096, 12_288, 32, 16, 4), 32)),
        ("Qwen/Qwen3.5-27B", 26_895_998_464, _qwen_35(_shape(5120, 17_408, 64, 24, 4), 48)),
    ],
    "Qwen3.5, experts, text part": [
        ("Qwen/Qwen3.5-35B-A3B", 34_660_610_688, _qwen_35_moe(2048, 40, 16, 32, 256, 8, 512)),
        ("Qwen/Qwen3.5-122B-A10B", 122_111_526_912, _qwen_35_moe(3072, 48, 32, 64, 256, 8, 1024)),
        ("Qwen/Qwen3.5-397B-A17B", 396_346_350_336, _qwen_35_moe(4096, 60, 32, 64, 512, 10, 1024)),
    ],
    "Qwen3-Next": [
        (
            "Qwen/Qwen3-Next-80B-A3B-Instruct",
            79_674_391_296,
            _shape(2048, 5120, 48, 16, 2)
            | {"model_type": "qwen3_next", "max_position_embeddings": 262_144, "rope_theta": 10_000_000},
        ),
    ],
    "Qwen3, experts": [
        (
            "Qwen/Qwen3-30B-A3B",
            30_532_122_624,
            _QWEN_3_MOE | {"head_dim": 128} | _shape(2048, 6144, 48, 32, 4),
        ),
        (
            "Qwen/Qwen3-235B-A22B",
            235_093_634_560,
            _QWEN_3_MOE | {"head_dim": 128, "moe_intermediate_size": 1536} | _shape(4096, 12_288, 94, 64, 4),
        ),
    ],
    "GLM-4.5": [
        ("zai-org/GLM-4.5-Air", 106_852_251_264, _GLM_45),
        (
            "zai-org/GLM-4.5",
            352_797_829_024,
            _GLM_45
            | _shape(5120, 12_288, 92, 96, 8)
            | {"moe_intermediate_size": 1536, "n_routed_experts": 160, "routed_scaling_factor": 2.5}
            | {"first_k_dense_replace": 3, "use_qk_norm": True},
        ),
    ],
    "dots.llm1": [
        (
            "rednote-hilab/dots.llm1.base",
            142_774_381_696,
            {"model_type": "dots1", "max_position_embeddings": 32_768, "rms_norm_eps": 1e-5, "rope_theta": 10_000_000.0}
            | {"n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1}
            | {"norm_topk_prob": True, "routed_scaling_factor": 2.5, "sliding_window": None, "hidden_size": 4096},
        ),
    ],
    "MiniMax-M2": [
        ("MiniMaxAI/MiniMax-M2", 228_689_764_864, {"model_type": "minimax_m2", "rotary_dim": 64}),
    ],
    "Llama 4, text part": [
        (
            "meta-llama/Llama-4-Scout-17B-16E-Instruct",
            107_769_861_120,
            _llama_4(16, 10_485_760, rope_scaling=_rope_scaling(16.0) | {"high_freq_factor": 1.0}),
        ),
        (
            "meta-llama/Llama-4-Maverick-17B-128E",
            400_711_848_960,
            _llama_4(128, 1_048_576, interleave_moe_layer_step=2, use_qk_norm=False),
        ),
    ],
    "SmolLM3": [
        (
            "HuggingFaceTB/SmolLM3-3B",
            3_075_098_624,
            {"model_type": "smollm3", "max_position_embeddings": 65_536, "rope_theta": 5_000_000.0},
        ),
    ],
    "OLMo 2": [
        ("allenai/OLMo-2-0425-1B", 1_484_916_736, _OLMO_2 | _shape(2048, 8192, 16, 16, 16)),
        ("allenai/OLMo-2-1124-7B", 7_298_617_344, _OLMO_2),
        ("allenai/OLMo-2-1124-13B", 13_716_198_400, _OLMO_2 | _shape(5120, 13_824, 40, 40, 40)),
        ("allenai/OLMo-2-0325-32B", 32_234_279_936, _OLMO_2 | _shape(5120, 27_648, 64, 40, 8)),
    ],
    "OLMoE": [
        ("allenai/OLMoE-1B-7B-0924", 6_919_161_856, {"model_type": "olmoe"} | _shape(2048, 1024, 16, 16, 16)),
    ],
    "OLMo 3": [
        ("allenai/Olmo-3-1025-7B", 7_298_011_136, _OLMO_3),
        ("allenai/Olmo-3-1125-32B", 32_233_522_176, _OLMO_3 | _shape(5120, 27_648, 64, 40, 8)),
    ],
    "Ministral 3, text part": [
        (
            "mistralai/Ministral-3-3B-Base-2512",
            3_429_006_336,
            _ministral_3(1e6, True, **_shape(3072, 9216, 26, 32, 8)),
        ),
        (
            "mistralai/Ministral-3-8B-Base-2512",
            8_489_553_920,
            _ministral_3(1e6, False, **_shape(4096, 14_336, 34, 32, 8)),
        ),
        (
            "mistralai/Ministral-3-14B-Base-2512",
            13_506_073_600,
            _ministral_3(1e9, False, **_shape(5120, 16_384, 40, 32, 8)),
        ),
    ],
    "GPT-2": [
        ("openai-community/gpt2", 124_439_808, _gpt2(768, 12, 12)),
        ("openai-community/gpt2-medium", 354_823_168, _gpt2(1024, 24, 16)),
        ("openai-community/gpt2-large", 774_030_080, _gpt2(1280, 36, 20)),
        ("openai-community/gpt2-xl", 1_557_611_200, _gpt2(1600, 48, 25)),
    ],
    "Phi-3, Phi-3.5 and Phi-4": [
        ("microsoft/Phi-3-mini-4k-instruct", 3_821_079_552, _PHI_3),
        ("microsoft/Phi-3-mini-128k-instruct", 3_821_079_552, _PHI_3 | _long(longrope.PHI_3_MINI)),
        ("microsoft/Phi-3-medium-4k-instruct", 13_960_238_080, _PHI_3_MEDIUM),
        (
            "microsoft/Phi-3-medium-128k-instruct",
            13_960_238_080,
            _PHI_3_MEDIUM | _long(longrope.PHI_3_MEDIUM, 131_072),
        ),
        ("microsoft/Phi-3.5-mini-instruct", 3_821_079_552, _PHI_3 | _long(longrope.PHI_35_MINI)),
        (
            "microsoft/phi-4",
            14_659_507_200,
            _PHI_3_MEDIUM
            | {"vocab_size": 100_352, "max_position_embeddings": 16_384, "original_max_position_embeddings": 16_384}
            | {"rope_theta": 250_000.0, "sliding_window": None},
        ),
        (
            "microsoft/Phi-4-mini-instruct",
            3_836_021_760,
            _PHI_3
            | _shape(3072, 8192, 32, 24, 8)
            | _long(longrope.PHI_4_MINI)
            | {"vocab_size": 200_064, "partial_rotary_factor": 0.75, "tie_word_embeddings": True},
        ),
    ],
    "gpt-oss": [
        (
            "openai/gpt-oss-20b",
            20_914_757_184,
            {"model_type": "gpt_oss", "num_hidden_layers": 24, "num_local_experts": 32},
        ),
        ("openai/gpt-oss-120b", 116_829_156_672, {"model_type": "gpt_oss"}),
    ],
    "Pythia and GPT-NeoX": [
        *(
            (f"EleutherAI/pythia-{size}{data}", parameters, raw)
            for data in ("", "-deduped")
            for size, (parameters, raw) in _PYTHIA.items()
        ),
        (
            "EleutherAI/gpt-neox-20b",
            20_554_567_680,
            {"model_type": "gpt_neox", "hidden_act": "gelu_fast"},
        ),
    ],
    "Mixtral": [
        (
            "mistralai/Mixtral-8x7B-v0.1",
            46_702_792_704,
            {"model_type": "mixtral", "max_position_embeddings": 32_768},
        ),
        (
            "mistralai/Mixtral-8x22B-v0.1",
            140_620_634_112,
            {"model_type": "mixtral", "max_position_embeddings": 65_536} | _shape(6144, 16_384, 56, 48, 8),
        ),
    ],
    "Mistral 7B": [
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096, _MISTRAL),
        (
            "mistralai/Mistral-7B-v0.3",
            7_248_023_552,
            _MISTRAL | {"vocab_size": 32_768, "rope_theta": 1_000_000.0, "sliding_window": None},
        ),
    ],
}
