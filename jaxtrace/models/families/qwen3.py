"""Qwen3 (dense)."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.families import common, qwen2
from jaxtrace.models.families.reader import ConfigReader

MODEL_TYPES = ("qwen3",)
ARCHITECTURES = ("Qwen3ForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS)
RENAMED = ()
IGNORED = ()

DEFAULTS = qwen2.DEFAULTS | {"head_dim": 128, "attention_bias": False}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Qwen3 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "qwen3", ignored) as reader:
        bias = reader.flag("attention_bias")
        return common.llama_like(
            reader,
            "qwen3",
            qwen2.window_pattern(reader),
            activation=reader.activation("hidden_act"),
            qk_norm="head",
            qkv_bias=bias,
            output_bias=bias,
        )
