"""Configs as the hub serves them and as transformers writes them; this needs no torch."""

import copy
import dataclasses
import json
import math

import pytest
import transformers

from jaxtrace.models.config import LayerKind, PositionScaling
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.rope_config import LinearScaling, Llama3Scaling, LongRopeScaling, Rope
from tests.models.parsing import LONGROPE, NEEDED, SCALED, SCALED_QUERIES, parsed, refused
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


WINDOWS = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}


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
