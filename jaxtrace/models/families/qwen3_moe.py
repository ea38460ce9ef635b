"""Qwen3-MoE: Qwen3 with experts, in all layers or in some."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, mixtures, ropes
from jaxtrace.models.families.reader import ConfigReader, renamed

MODEL_TYPES = ("qwen3_moe",)
ARCHITECTURES = ("Qwen3MoeForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS) + mixtures.EXPERTS
RENAMED = ()
IGNORED = ()

DEFAULTS = {
    "vocab_size": 151_936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "attention_bias": False,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "decoder_sparse_step": 1,
    "mlp_only_layers": None,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": False,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Qwen3-MoE config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    own = renamed(config, {"num_local_experts": "num_experts"})
    with ConfigReader(own, source, DEFAULTS, "qwen3_moe", ignored) as reader:
        reader.ignore("max_window_layers")  # no layer reads it
        bias = reader.flag("attention_bias")
        window = reader.positive_or_none("sliding_window")
        kind = LayerKind(window if reader.flag("use_sliding_window") else None, ropes.rope(reader))
        return common.llama_like(
            reader,
            "qwen3_moe",
            mixtures.expert_layers(reader, [kind] * reader.layers()),
            activation=reader.activation("hidden_act"),
            qk_norm="head",
            qkv_bias=bias,
            output_bias=bias,
            experts=mixtures.experts(
                reader, "num_experts", "moe_intermediate_size", normalised=reader.flag("norm_topk_prob")
            ),
        )
