"""OLMo 2."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, ropes
from jaxtrace.models.families.reader import ConfigReader

MODEL_TYPES = ("olmo2",)
ARCHITECTURES = ("Olmo2ForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS_AFTER)
RENAMED = ()
IGNORED = ()

DEFAULTS = {
    "vocab_size": 50_304,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "attention_bias": False,
    "tie_word_embeddings": False,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map an OLMo 2 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "olmo2", ignored) as reader:
        return olmo(reader, "olmo2", (LayerKind(rope=ropes.rope(reader)),))


def olmo(reader: ConfigReader, family: str, pattern: tuple[LayerKind, ...], **choices: Any) -> DecoderConfig:
    """Build the config that OLMo 2 and 3 share: norms after each part of a block, and over whole queries and keys."""
    bias = reader.flag("attention_bias")
    return common.llama_like(
        reader,
        family,
        pattern,
        activation=reader.activation("hidden_act"),
        norm_placement="after",
        qk_norm="width",
        qkv_bias=bias,
        output_bias=bias,
        **choices,
    )
