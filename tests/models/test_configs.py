"""Configs as the hub serves them and as transformers writes them; this needs no torch."""

import copy
import dataclasses
import json
import math

import pytest
import transformers

from jaxtrace import ConfigError
from jaxtrace.models.config import LayerKind, PositionScaling
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.rope_config import LinearScaling, Llama3Scaling, LongRopeScaling, Rope
from tests.models.published import PUBLISHED

CLASSES = {
    "llama": transformers.LlamaConfig,
    "exaone": transformers.ExaoneConfig,
    "internlm3": transformers.InternLM3Config,
    "iquestcoder": transformers.IQuestCoderConfig,
    "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
    "qwen2_moe": transformers.Qwen2MoeConfig,
    "qwen3_moe": transformers.Qwen3MoeConfig,
    "qwen3_5_text": transformers.Qwen3_5TextConfig,
    "qwen3_5": transformers.Qwen3_5Config,
    "qwen3_5_moe_text": transformers.Qwen3_5MoeTextConfig,
    "qwen3_5_moe": transformers.Qwen3_5MoeConfig,
    "qwen3_next": transformers.Qwen3NextConfig,
    "mixtral": transformers.MixtralConfig,
    "olmoe": transformers.OlmoeConfig,
    "flex_olmo": transformers.FlexOlmoConfig,
    "glm4_moe": transformers.Glm4MoeConfig,
    "dots1": transformers.Dots1Config,
    "minimax_m2": transformers.MiniMaxM2Config,
    "llama4_text": transformers.Llama4TextConfig,
    "llama4": transformers.Llama4Config,
    "gemma2": transformers.Gemma2Config,
    "gemma3_text": transformers.Gemma3TextConfig,
    "gemma3": transformers.Gemma3Config,
    "phi3": transformers.Phi3Config,
    "gemma4_text": transformers.Gemma4TextConfig,
    "gemma4": transformers.Gemma4Config,
    "gemma4_unified_text": transformers.Gemma4UnifiedTextConfig,
    "gemma4_unified": transformers.Gemma4UnifiedConfig,
    "gpt2": transformers.GPT2Config,
    "gpt_neox": transformers.GPTNeoXConfig,
    "gpt_oss": transformers.GptOssConfig,
    "olmo2": transformers.Olmo2Config,
    "olmo3": transformers.Olmo3Config,
    "smollm3": transformers.SmolLM3Config,
    "ministral": transformers.MinistralConfig,
    "ministral3": transformers.Ministral3Config,
    "mistral3": transformers.Mistral3Config,
}


# Attributes without which transformers builds no model.
NEEDED = {"dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2}}


def parsed(config):
    return FAMILIES[config["model_type"]].decoder_config(NEEDED.get(config["model_type"], {}) | config, "test")


def rewritten(config):
    """Return the config as transformers reads and writes it."""
    instance = CLASSES[config["model_type"]].from_dict(NEEDED.get(config["model_type"], {}) | copy.deepcopy(config))
    return json.loads(json.dumps(instance.to_dict()))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_survive_a_round_trip_through_transformers(name):
    written = rewritten(PUBLISHED[name])
    if written["model_type"] == "mistral3":  # transformers 5 writes true here, whatever text_config says
        del written["tie_word_embeddings"]
    assert parsed(PUBLISHED[name]) == parsed(written)


@pytest.mark.parametrize("kind", CLASSES)
def test_defaults_equal_those_of_transformers(kind):
    assert parsed({"model_type": kind}) == parsed(CLASSES[kind](**NEEDED.get(kind, {})).to_dict())
    fields = {field.name: field.default for field in dataclasses.fields(CLASSES[kind])}
    multi_modal = kind in ("gemma3", "gemma4", "gemma4_unified", "llama4", "qwen3_5", "qwen3_5_moe")
    module = FAMILIES[kind]
    defaults = module.UNIFIED_DEFAULTS if kind == "gemma4_unified_text" else {} if multi_modal else module.DEFAULTS
    defaults = defaults | getattr(module, "OTHER_DEFAULTS", {}).get(kind, {})
    differing = {name: value for name, value in defaults.items() if name in fields and value != fields[name]}
    assert {name for name, value in differing.items() if not isinstance(value, dict)} == set()


SCALED_QUERIES = {"llama_4_scaling_beta": 0.5, "original_max_position_embeddings": 16}
WINDOWS = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}
SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED["original_max_position_embeddings"] = 64
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "rope_theta": 5.0, "rope_scaling": SCALED},
        {"model_type": "llama", "num_key_value_heads": None, "head_dim": None},
        {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"model_type": "exaone", "num_layers": 3, "layer_norm_epsilon": 1e-3, "activation_function": "gelu"},
        {"model_type": "internlm3", "qkv_bias": True, "bias": True},
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "qwen2", **WINDOWS},
        {"model_type": "qwen2", **WINDOWS, "max_window_layers": 0},
        {"model_type": "qwen2", **WINDOWS, "max_window_layers": 99},
        {"model_type": "qwen2", **WINDOWS, "use_sliding_window": False},
        {"model_type": "qwen2", "use_sliding_window": True},
        {"model_type": "qwen3", **WINDOWS, "sliding_window": None},
        {"model_type": "qwen3", **WINDOWS, "layer_types": ["sliding_attention", "full_attention"] * 16},
        {"model_type": "qwen3_5_text", "full_attention_interval": 3, "partial_rotary_factor": 0.5, "rope_theta": 5.0},
        {"model_type": "qwen3_5_text", "num_hidden_layers": 2, "layer_types": ["full_attention", "linear_attention"]},
        {"model_type": "qwen3_5_text", "rope_parameters": {"rope_type": "default", "mrope_section": [11, 11, 10]}},
        {"model_type": "qwen3_next", "mlp_only_layers": [3], "rope_theta": 5.0, "rope_scaling": None},
        {"model_type": "gemma2", "num_hidden_layers": 5, "attn_logit_softcapping": None},
        {"model_type": "gemma2", "num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]},
        {"model_type": "gemma3_text", "sliding_window_pattern": 3, "rope_local_base_freq": 7.0, "rope_theta": 9.0},
        {"model_type": "gemma3_text", "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}},
        {"model_type": "gemma3_text", "final_logit_softcapping": 20.0},
        {"model_type": "gpt2", "n_inner": 7, "activation_function": "gelu"},
        {"model_type": "gpt2", "n_layer": 5, "num_hidden_layers": 2, "hidden_size": 36, "num_attention_heads": 3},
        {"model_type": "llama", "rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 5.0}},
        {"model_type": "llama", "partial_rotary_factor": 1.0, "rope_scaling": SCALED},
        {
            "model_type": "llama",
            "max_position_embeddings": 512,
            "rope_scaling": {name: SCALED[name] for name in SCALED if name != "original_max_position_embeddings"},
        },
        {"model_type": "llama", "original_max_position_embeddings": 64, "rope_theta": 5.0},
        {"model_type": "llama", "original_max_position_embeddings": 32, "rope_scaling": SCALED},
        {
            "model_type": "llama",
            "original_max_position_embeddings": 32,
            "rope_scaling": {"type": "yarn", "factor": 2.0},
        },
        {"model_type": "mistral", "layer_types": ["sliding_attention"] * 32},
        {"model_type": "phi3", "sliding_window": 7, "partial_rotary_factor": 0.5, "rope_theta": 5.0},
        {"model_type": "phi3", "max_position_embeddings": 8192, "rope_scaling": LONGROPE},
        {"model_type": "phi3", "original_max_position_embeddings": 64, "rope_parameters": LONGROPE},
        {"model_type": "gpt_neox", "rotary_pct": 0.5, "rotary_emb_base": 5, "attention_bias": False},
        {"model_type": "gpt_neox", "use_parallel_residual": False, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"model_type": "gpt_neox", "rotary_pct": 0.5, "rope_parameters": {"rope_type": "default", "rope_theta": 5.0}},
        {"model_type": "olmo2", "rope_theta": 7.0, "head_dim": 64, "num_key_value_heads": 8},
        {"model_type": "olmo2", "rope_scaling": SCALED, "attention_bias": True},
        {"model_type": "olmo3", "num_hidden_layers": 5, "sliding_window": 8},
        {"model_type": "olmo3", "rope_theta": 7.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        {"model_type": "olmo3", "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}},
        {"model_type": "olmo3", "rope_parameters": {"sliding_attention": {"rope_theta": 9.0}}},
        {"model_type": "olmo3", "layer_types": ["full_attention"] * 32},
        {"model_type": "smollm3", "no_rope_layer_interval": 3, "num_hidden_layers": 7},
        {"model_type": "smollm3", "no_rope_layers": [1, 0] * 20},
        {"model_type": "smollm3", "use_sliding_window": True, "sliding_window": 8},
        {"model_type": "smollm3", "use_sliding_window": True, "rope_theta": 7.0},
        {"model_type": "smollm3", "sliding_window": 8, "num_key_value_heads": None},
        {"model_type": "ministral", "sliding_window": None},
        {"model_type": "ministral", "layer_types": ["full_attention", "sliding_attention"] * 16},
        {"model_type": "ministral3", "rope_parameters": SCALED | {"llama_4_scaling_beta": 0.5}},
        {"model_type": "ministral3", "rope_parameters": SCALED | {"llama_4_scaling_beta": 0}, "sliding_window": 8},
        {"model_type": "ministral3", "rope_theta": 7.0, "rope_scaling": {"type": "default", **SCALED_QUERIES}},
        {"model_type": "ministral3", "rope_parameters": {"rope_type": "default", **SCALED_QUERIES}, "head_dim": 64},
        {"model_type": "mistral3", "tie_word_embeddings": False},
        {"model_type": "mistral3", "text_config": {"num_hidden_layers": 2}},
        {"model_type": "mistral3", "text_config": {"model_type": "mistral", "tie_word_embeddings": True}},
        {
            "model_type": "mistral3",
            "tie_word_embeddings": False,
            "text_config": {
                "model_type": "ministral3",
                "tie_word_embeddings": True,
                "rope_parameters": {"rope_type": "default", **SCALED_QUERIES},
            },
        },
    ],
    ids=str,
)
def test_absent_attributes_get_the_defaults_of_transformers(config):
    assert parsed(config) == parsed(rewritten(config))


def sizes(config):
    return config.embed_dim, config.num_layers, config.num_heads, config.kv_heads, config.head_dim, config.feed_forward


def test_llama_config_from_the_hub():
    config = parsed(PUBLISHED["Llama-3.1-70B"])
    assert sizes(config) == (8192, 80, 64, 8, 128, 28672)
    assert config.pattern == (LayerKind(rope=Rope(500000.0, Llama3Scaling(8.0, 1.0, 4.0, 8192))),)
    assert not config.tied
    assert parsed(PUBLISHED["Llama-3.2-1B"]).tied


def test_mistral_config_from_the_hub():
    windowed, full = parsed(PUBLISHED["Mistral-7B-v0.1"]), parsed(PUBLISHED["Mistral-7B-v0.3"])
    assert windowed.pattern == (LayerKind(4096, Rope(10_000.0)),)
    assert full.pattern == (LayerKind(None, Rope(1_000_000.0)),)
    assert full.vocab_size == 32768


def test_qwen_configs_from_the_hub():
    old = parsed(PUBLISHED["DeepSeek-R1-Distill-Qwen-1.5B"])
    assert (old.qkv_bias, old.output_bias, old.qk_norm) == (True, False, None)
    assert old.pattern == (LayerKind(),)
    new = parsed(PUBLISHED["Qwen3-0.6B"])
    assert sizes(new) == (1024, 28, 16, 8, 128, 3072)
    assert (new.qkv_bias, new.output_bias, new.qk_norm, new.tied) == (False, False, "head", True)
    windowed = parsed({**PUBLISHED["Qwen3-0.6B"], **WINDOWS, "num_hidden_layers": 5})
    assert [kind.window for kind in windowed.kinds] == [None, None, None, 8, 8]


def test_gemma2_config_from_the_hub():
    config = parsed(PUBLISHED["gemma-2-27b"])
    assert sizes(config) == (4608, 46, 32, 16, 128, 36864)
    assert [kind.window for kind in config.pattern] == [4096, None]
    assert (config.score_soft_cap, config.logit_soft_cap, config.scale) == (50.0, 30.0, 144**-0.5)
    assert (config.norm_offset, config.norm_placement, config.qk_norm) == (1.0, "around", None)
    assert config.activation == "gelu_tanh"
    assert config.embedding_scale == 4608**0.5
    assert config.tied


def test_gemma3_configs_from_the_hub():
    config = parsed(PUBLISHED["gemma-3-27b"])
    assert sizes(config) == (5376, 62, 32, 16, 128, 21504)
    local, full = LayerKind(1024, Rope(10_000.0)), LayerKind(None, Rope(1_000_000.0, LinearScaling(8.0)))
    assert config.pattern == (local,) * 5 + (full,)
    assert (config.vocab_size, config.context, config.scale) == (262208, 131072, 168**-0.5)
    assert (config.qk_norm, config.tied, config.score_soft_cap, config.logit_soft_cap) == ("head", True, None, None)
    small = parsed(PUBLISHED["gemma-3-270m"])
    assert small.pattern == (LayerKind(512, Rope(10_000.0)),) * 5 + (LayerKind(None, Rope(1_000_000.0)),)
    assert sizes(parsed(PUBLISHED["gemma-3-4b"])) == (2560, 34, 8, 4, 256, 10240)


def test_gpt2_config_from_the_hub():
    config = parsed(PUBLISHED["gpt2-xl"])
    assert sizes(config) == (1600, 48, 25, 25, 64, 6400)
    assert config.pattern == (LayerKind(rope=None),)
    assert (config.norm, config.gated, config.learned_positions, config.activation) == (
        "layer",
        False,
        True,
        "gelu_tanh",
    )
    assert config.qkv_bias and config.output_bias and config.feed_forward_bias and config.tied


def test_olmo_configs_from_the_hub():
    config = parsed(PUBLISHED["OLMo-2-0325-32B"])
    assert sizes(config) == (5120, 64, 40, 8, 128, 27648)
    assert (config.norm_placement, config.qk_norm, config.tied) == ("after", "width", False)
    assert config.pattern == (LayerKind(rope=Rope(500_000.0)),)
    config = parsed(PUBLISHED["Olmo-3-1025-7B"])
    assert (config.norm_placement, config.qk_norm, config.context) == ("after", "width", 65_536)
    assert config.pattern[:3] == (LayerKind(4096, Rope(500_000.0)),) * 3  # rope is scaled in full layers only
    full = config.pattern[3]
    assert (len(config.pattern), full.window, full.rope.theta, full.rope.scaling.factor) == (4, None, 500_000.0, 8.0)


def test_smollm3_config_from_the_hub():
    config = parsed(PUBLISHED["SmolLM3-3B"])
    assert sizes(config) == (2048, 36, 16, 4, 128, 11008)
    assert config.pattern == (LayerKind(rope=Rope(5_000_000.0)),) * 3 + (LayerKind(rope=None),)
    assert config.tied


def test_ministral_3_configs_from_the_hub():
    small, large = (parsed(PUBLISHED[f"Ministral-3-{size}-Base-2512"]) for size in ("3B", "14B"))
    assert sizes(small) == (3072, 26, 32, 8, 128, 9216)
    assert sizes(large) == (5120, 40, 32, 8, 128, 16384)
    assert {kind.position_scaling for kind in small.pattern + large.pattern} == {PositionScaling(0.1, 16_384)}
    assert (small.tied, large.tied) == (True, False)
    assert [config.pattern[0].rope.theta for config in (small, large)] == [1e6, 1e9]
    assert small.pattern[0].rope.scaling == large.pattern[0].rope.scaling != None  # noqa: E711


@pytest.mark.parametrize("kind", CLASSES)
def test_generation_settings_of_transformers_4_are_harmless(kind):
    old = {"max_length": 20, "temperature": 0.6, "is_decoder": False, "pruned_heads": {}, "add_cross_attention": False}
    assert parsed({"model_type": kind, **old}) == parsed({"model_type": kind})


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pruned_heads", {"0": [1]}),
        ("add_cross_attention", True),
        ("per_layer_config", {"0": {}}),
        ("attention_chunk_size", 8),
        ("is_causal", False),
        ("is_causal", None),
        ("partial_rotary_factor", 0.5),
        ("rope_interleaved", True),
        ("rope_ratio", 2.0),
        ("v_head_dim", 8),
        ("quantization_config", {"bits": 4}),
        ("mem_layer", 3),
        ("transformers_weights", "other.safetensors"),
    ],
)
def test_attributes_that_shape_the_computation_are_refused_by_name(kind, name, value):
    if name == "partial_rotary_factor" and name in FAMILIES[kind].DEFAULTS:
        pytest.skip("the family rotates any fraction of a head")
    if (kind, name) == ("llama4_text", "attention_chunk_size"):
        pytest.skip("Llama 4 has chunks")
    if name == "per_layer_config" and kind in ("gemma4_text", "gemma4_unified_text"):
        pytest.skip("Gemma 4 has sizes by layer")
    refused({"model_type": kind, name: value}, f"{name}={value!r}")


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "attention_bias": None, "mlp_bias": None, "sliding_window": None, "layer_types": None},
        {"model_type": "llama", "rope_theta": None, "rope_scaling": {"type": "default", "partial_rotary_factor": 1.0}},
        {"model_type": "mistral", "attention_bias": None, "partial_rotary_factor": None, "layer_types": None},
        {"model_type": "qwen2", "use_mrope": None, "use_sliding_window": None, "rope_interleaved": None},
        {"model_type": "qwen3", "attention_bias": None, "use_mrope": False, "is_causal": True},
        {"model_type": "gemma2", "hidden_act": None, "sliding_window_size": None, "use_bidirectional_attention": None},
        {"model_type": "gpt2", "n_inner": None, "head_dim": 64, "scale_attn_by_inverse_layer_idx": None},
        {"model_type": "phi3", "attention_bias": False, "mlp_bias": False, "full_attn_mod": 1, "sliding_window": 4096},
        {"model_type": "gpt_neox", "rotary_emb_base": 10000, "rope_theta": 10000, "partial_rotary_factor": 0.25},
        {"model_type": "gpt_neox", "head_dim": 96, "hidden_dropout": 0.1, "attention_probs_dropout_prob": 0.1},
    ],
    ids=str,
)
def test_null_and_neutral_values_change_nothing(config):
    assert parsed(config) == parsed({"model_type": config["model_type"]})


ROPES = {
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 32768, "finetuned": True},
    "longrope": {"short_factor": [1.0] * 64, "long_factor": [2.0] * 64},
    "dynamic": {"factor": 2.0},
    "linear": {"factor": 2.0},
    "proportional": {"partial_rotary_factor": 0.5},
}
ROPE_FAMILIES = sorted(
    kind
    for kind in CLASSES
    if kind not in ("gpt2", "gemma3", "mistral3", "phi3", "glm4_moe", "qwen3_5", "qwen3_5_moe")
    and not kind.startswith(("gemma4", "llama4"))
)
WHOLE_HEADS = {"gpt_neox": {"hidden_size": 64 * 128, "rotary_pct": 1.0}}
WHOLE_HEADS |= {kind: {"partial_rotary_factor": 1.0} for kind in ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")}


@pytest.mark.parametrize("kind", ROPE_FAMILIES)
@pytest.mark.parametrize("name", ROPES)
@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_every_kind_of_rope_is_read_as_transformers_writes_it(kind, name, key):
    config = {
        "model_type": kind,
        "head_dim": 128,
        "rope_scaling": {key: name, **ROPES[name]},
        **WHOLE_HEADS.get(kind, {}),
    }
    if kind == "ministral3":
        config["rope_scaling"]["llama_4_scaling_beta"] = 0
    if kind in ("gemma3_text", "olmo3") and key == "type":
        return refused(config, f"type={name!r}, which transformers ignores here; name it rope_type")
    rope = [layer.rope for layer in parsed(config).pattern if layer.rope][-1]
    assert type(rope.scaling).__name__.lower() == f"{name}scaling"
    assert parsed(config) == parsed(rewritten(config))


@pytest.mark.parametrize("name", ROPES)
def test_ropes_of_layer_types_are_read_one_by_one(name):
    split = {"sliding_attention": {"rope_type": name, **ROPES[name]}, "full_attention": {"rope_type": "default"}}
    config = {"model_type": "gemma3_text", "head_dim": 128, "rope_parameters": split}
    assert parsed(config).pattern[-1].rope == Rope(1_000_000.0)
    assert type(parsed(config).pattern[0].rope.scaling).__name__.lower() == f"{name}scaling"
    assert parsed(config) == parsed(rewritten(config))


@pytest.mark.parametrize("name", ["su", "yarn", "longrope"])
@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_phi3s_longrope_has_three_names(name, key):
    config = {"model_type": "phi3", "max_position_embeddings": 65_536}
    scaling = parsed(config | {"rope_scaling": LONGROPE | {"type": None, key: name}}).pattern[0].rope.scaling
    assert scaling == LongRopeScaling((1.0,) * 48, (2.0,) * 48, 4096, math.sqrt(1 + math.log(16) / math.log(4096)))


@pytest.mark.parametrize("kind", ROPE_FAMILIES)
@pytest.mark.parametrize("name", ["mrope", "axial", "su", "x"])
def test_unsupported_ropes_are_refused(kind, name):
    refused({"model_type": kind, "rope_scaling": {"rope_type": name, "factor": 2.0}}, f"rope scaling {name!r}")


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


def refused(config, part):
    with pytest.raises(ConfigError) as error:
        parsed(config)
    assert part in str(error.value)
    assert "\n" not in str(error.value)
