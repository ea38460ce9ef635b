"""Mistral 7B, and models with the same architecture."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, ropes
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.rope_config import Rope

MODEL_TYPES = ("mistral",)
ARCHITECTURES = ("MistralForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS)
RENAMED = ()
IGNORED = ()

DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "sliding_window": 4096,
    "layer_types": None,
    "tie_word_embeddings": False,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Mistral config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "mistral", ignored) as reader:
        layers = pattern(reader, ropes.rope(reader))
        return common.llama_like(reader, "mistral", layers, activation=reader.activation("hidden_act"))


def pattern(reader: ConfigReader, rope: Rope) -> tuple[LayerKind, ...]:
    """Return the layer pattern: windows in all layers, or in none."""
    kind = LayerKind(reader.positive_or_none("sliding_window"), rope)
    name = "full_attention" if kind.window is None else "sliding_attention"
    return common.layer_pattern(reader, [name] * reader.layers(), {name: kind})
