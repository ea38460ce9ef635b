"""Qwen3.5 with experts in all layers: the text models, and the text part of multi-modal models."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, pattern_of
from jaxtrace.models.families import common, mixtures, qwen3_5
from jaxtrace.models.families.reader import ConfigReader

MODEL_TYPES = ("qwen3_5_moe", "qwen3_5_moe_text")
ARCHITECTURES = ("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM")
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = qwen3_5.WEIGHTS + mixtures.EXPERTS + mixtures.shared_table("mlp.shared_expert")
RENAMED, IGNORED, REFUSED = qwen3_5.RENAMED, qwen3_5.IGNORED, qwen3_5.REFUSED

DEFAULTS = qwen3_5.SHARED_DEFAULTS | {
    "hidden_size": 2048,
    "num_hidden_layers": 40,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "num_experts": 256,
    "num_experts_per_tok": 8,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Qwen3.5-MoE config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    family = config["model_type"]
    if family == "qwen3_5_moe_text":
        return _text(family, config, source, ignored)
    text = qwen3_5.text_config(config, source, "qwen3_5_moe", ignored)
    return _text(family, text, source, ignored, "text_config.")


def _text(
    family: str, config: dict[str, Any], source: str, ignored: dict[str, str] | None, part: str = ""
) -> DecoderConfig:
    with ConfigReader(config, source, DEFAULTS, "qwen3_5_moe", ignored, part) as reader:
        reader.ignore("intermediate_size")  # no layer reads it
        experts = mixtures.shared_experts(reader, normalised=True)
        return common.llama_like(
            reader,
            family,
            pattern_of(qwen3_5.layers(reader)),
            feed_forward=experts.shared,
            experts=experts,
            **qwen3_5.choices(reader),
        )
