"""Ministral: Mistral with windows in some layers."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, mistral, ropes
from jaxtrace.models.families.reader import ConfigReader

MODEL_TYPES = ("ministral",)
ARCHITECTURES = ("MinistralForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS)
RENAMED = ()
IGNORED = ()

DEFAULTS = mistral.DEFAULTS


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Ministral config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "ministral", ignored) as reader:
        rope, window = ropes.rope(reader), reader.positive_or_none("sliding_window")
        kinds = {"full_attention": LayerKind(rope=rope)}
        if window is not None:
            kinds["sliding_attention"] = LayerKind(window, rope)
        pattern = common.layer_pattern(reader, [[*kinds][-1]] * reader.layers(), kinds)
        return common.llama_like(reader, "ministral", pattern, activation=reader.activation("hidden_act"))
