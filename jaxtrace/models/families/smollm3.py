"""SmolLM3: Llama with layers without rotary positions."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind, pattern_of
from jaxtrace.models.families import common, ropes
from jaxtrace.models.families.reader import ConfigReader

MODEL_TYPES = ("smollm3",)
ARCHITECTURES = ("SmolLM3ForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS)
RENAMED = ()
IGNORED = ()

DEFAULTS = {
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 11_008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 2_000_000.0,
    "use_sliding_window": False,
    "sliding_window": None,
    "no_rope_layers": None,
    "no_rope_layer_interval": 4,
    "layer_types": None,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a SmolLM3 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "smollm3", ignored) as reader:
        bias = reader.flag("attention_bias")
        return common.llama_like(
            reader,
            "smollm3",
            _pattern(reader),
            activation=reader.activation("hidden_act"),
            qkv_bias=bias,
            output_bias=bias,
            feed_forward_bias=reader.flag("mlp_bias"),
        )


def _pattern(reader: ConfigReader) -> tuple[LayerKind, ...]:
    """Return the layer pattern; with `use_sliding_window`, layers without rotary positions have windows by default."""
    rope, window, rotated = ropes.rope(reader), reader.positive_or_none("sliding_window"), rotated_layers(reader)
    windows = reader.flag("use_sliding_window") and window is not None
    types = ["sliding_attention" if windows and not rotates else "full_attention" for rotates in rotated]
    known = ("full_attention", "sliding_attention") if windows else ("full_attention",)
    return pattern_of(
        [
            LayerKind(window if name == "sliding_attention" else None, rope if rotates else None)
            for name, rotates in zip(common.layer_types(reader, types, known), rotated, strict=True)
        ]
    )


def rotated_layers(reader: ConfigReader) -> list[bool]:
    """Return which layers have rotary positions: those with a 1 in `no_rope_layers`, in spite of its name."""
    layers, interval, listed = reader.layers(), reader.positive("no_rope_layer_interval"), reader.get("no_rope_layers")
    if listed is None:
        return [(i + 1) % interval != 0 for i in range(layers)]
    if not isinstance(listed, list) or len(listed) < layers or not all(type(x) is int and x in (0, 1) for x in listed):
        reader.fail(f"has no_rope_layers={listed!r}, which must be a list of at least {layers} ones and zeros")
    return [x == 1 for x in listed[:layers]]
