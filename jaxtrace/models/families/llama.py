"""Llama 2, 3, 3.1, 3.2 (text), and what transformers computes as Llama: EXAONE 3, InternLM3, IQuest-Coder."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, ropes
from jaxtrace.models.families.reader import ConfigReader, renamed

MODEL_TYPES = ("llama", "exaone", "internlm3", "iquestcoder")
ARCHITECTURES = ("LlamaForCausalLM", "ExaoneForCausalLM", "InternLM3ForCausalLM", "IQuestCoderForCausalLM")
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS)
# Names of EXAONE's own code, which its checkpoints on the hub have.
RENAMED = (
    (r"^transformer\.wte\.", "model.embed_tokens."),
    (r"^transformer\.ln_f\.", "model.norm."),
    (r"^transformer\.h\.", "model.layers."),
    (r"\.attn\.attention\.out_proj\.", ".self_attn.o_proj."),
    (r"\.attn\.attention\.", ".self_attn."),
    (r"\.ln_1\.", ".input_layernorm."),
    (r"\.ln_2\.", ".post_attention_layernorm."),
    (r"\.mlp\.c_fc_0\.", ".mlp.gate_proj."),
    (r"\.mlp\.c_fc_1\.", ".mlp.up_proj."),
    (r"\.mlp\.c_proj\.", ".mlp.down_proj."),
)
IGNORED = ()

DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
}
# What the config classes of the others have besides, and other names of their attributes.
OTHER_DEFAULTS: dict[str, dict[str, Any]] = {
    "exaone": {
        "vocab_size": 102_400,
        "intermediate_size": 14_336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
    },
    "internlm3": {
        "vocab_size": 128_512,
        "intermediate_size": 10_240,
        "num_hidden_layers": 48,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-5,
    },
    "iquestcoder": {
        "vocab_size": 76_800,
        "hidden_size": 5120,
        "intermediate_size": 27_648,
        "num_hidden_layers": 80,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-5,
    },
}
ALIASES = {
    "exaone": {
        "num_layers": "num_hidden_layers",
        "layer_norm_epsilon": "rms_norm_eps",
        "activation_function": "hidden_act",
    },
    "internlm3": {"qkv_bias": "attention_bias", "bias": "mlp_bias"},
}
REFUSED = {
    "clip_qkv": "no published model clips q, k and v",
    "use_sliding_window": "no published model has windows",
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Llama config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    kind = config.get("model_type", "llama")
    own, defaults = renamed(config, ALIASES.get(kind, {})), DEFAULTS | OTHER_DEFAULTS.get(kind, {})
    with ConfigReader(own, source, defaults, "llama", ignored) as reader:
        bias, feed_forward_bias = reader.flag("attention_bias"), reader.flag("mlp_bias")
        if kind == "internlm3" and bias != feed_forward_bias:
            reader.fail(f"has qkv_bias={bias} and bias={feed_forward_bias}; they must be equal")
        if kind == "iquestcoder":
            reader.only("clip_qkv", None)
            reader.only("use_sliding_window", False, None)
        return common.llama_like(
            reader,
            "llama",
            (LayerKind(rope=ropes.rope(reader)),),
            activation=reader.activation("hidden_act"),
            qkv_bias=bias,
            output_bias=bias,
            feed_forward_bias=feed_forward_bias,
        )
