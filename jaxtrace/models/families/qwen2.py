"""Qwen2, Qwen2.5, and the distilled DeepSeek-R1 models with the same architecture."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, ropes
from jaxtrace.models.families.reader import ConfigReader

MODEL_TYPES = ("qwen2",)
ARCHITECTURES = ("Qwen2ForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS)
RENAMED = ()
IGNORED = ()

DEFAULTS = {
    "vocab_size": 151_936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
    "tie_word_embeddings": False,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Qwen2 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "qwen2", ignored) as reader:
        return common.llama_like(
            reader,
            "qwen2",
            window_pattern(reader),
            activation=reader.activation("hidden_act"),
            qkv_bias=True,
        )


def window_pattern(reader: ConfigReader) -> tuple[LayerKind, ...]:
    """Return the layer pattern: full attention, or with `use_sliding_window` windows from `max_window_layers`."""
    rope, layers = ropes.rope(reader), reader.layers()
    full_layers, window = reader.whole("max_window_layers"), reader.positive_or_none("sliding_window")
    kinds = {"full_attention": LayerKind(rope=rope)}
    types = ["full_attention"] * layers
    if reader.flag("use_sliding_window") and window is not None:
        kinds["sliding_attention"] = LayerKind(window, rope)
        types[full_layers:] = ["sliding_attention"] * len(types[full_layers:])
    return common.layer_pattern(reader, types, kinds)
