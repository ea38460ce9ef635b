"""Qwen2-MoE and Qwen1.5-MoE: Qwen2 with experts, and a gated shared expert, in all layers or in some."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, mixtures, ropes
from jaxtrace.models.families.reader import ConfigReader

MODEL_TYPES = ("qwen2_moe",)
ARCHITECTURES = ("Qwen2MoeForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS) + mixtures.EXPERTS + mixtures.shared_table("mlp.shared_expert")
RENAMED = ()
IGNORED = ()

DEFAULTS = {
    "vocab_size": 151_936,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "qkv_bias": True,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
    "tie_word_embeddings": False,
    "decoder_sparse_step": 1,
    "mlp_only_layers": None,
    "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "norm_topk_prob": False,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Qwen2-MoE config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "qwen2_moe", ignored) as reader:
        return common.llama_like(
            reader,
            "qwen2_moe",
            mixtures.expert_layers(reader, _layers(reader)),
            activation=reader.activation("hidden_act"),
            qkv_bias=reader.flag("qkv_bias"),
            experts=mixtures.shared_experts(reader, normalised=reader.flag("norm_topk_prob")),
        )


def _layers(reader: ConfigReader) -> list[LayerKind]:
    """Return the layers, without experts: by default every second one of the first `max_window_layers` has a window."""
    rope, windows, first = ropes.rope(reader), reader.flag("use_sliding_window"), reader.whole("max_window_layers")
    kinds = {"full_attention": LayerKind(rope=rope)}
    if windows:
        kinds["sliding_attention"] = LayerKind(reader.positive("sliding_window"), rope)
    else:
        reader.ignore("sliding_window")
    types = [
        "sliding_attention" if windows and i % 2 == 0 and i < first else "full_attention"
        for i in range(reader.layers())
    ]
    return [kinds[name] for name in common.layer_types(reader, types, list(kinds))]
