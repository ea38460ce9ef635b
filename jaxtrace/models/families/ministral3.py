"""Ministral 3: Mistral with queries that are scaled by their position."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxtrace.models.config import DecoderConfig, PositionScaling
from jaxtrace.models.families import common, mistral, ropes
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.rope_config import Rope

MODEL_TYPES = ("ministral3",)
ARCHITECTURES = ("Ministral3ForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS)
RENAMED = ()
IGNORED = ()

STRENGTH = "llama_4_scaling_beta"
DEFAULTS = mistral.DEFAULTS | {
    "vocab_size": 131_072,
    "num_hidden_layers": 34,
    "head_dim": 128,
    "max_position_embeddings": 262_144,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 1_000_000.0,
        "factor": 16.0,
        "original_max_position_embeddings": 16_384,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale_all_dim": 1.0,
        "mscale": 1.0,
        STRENGTH: 0.1,
    },
    "sliding_window": None,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Ministral 3 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "ministral3", ignored) as reader:
        settings = ropes.rope_settings(reader)
        settings.pop("max_position_embeddings", None)  # transformers does not use it
        strength = settings.pop(STRENGTH, None)
        rope = ropes.rope_of(reader, settings)
        scaling = _position_scaling(reader, strength, rope, settings)
        pattern = tuple(replace(kind, position_scaling=scaling) for kind in mistral.pattern(reader, rope))
        return common.llama_like(reader, "ministral3", pattern, activation=reader.activation("hidden_act"))


def _position_scaling(
    reader: ConfigReader, strength: Any, rope: Rope, settings: dict[str, Any]
) -> PositionScaling | None:
    """Return the scaling of queries, which starts at the original context of the rotary positions."""
    if strength == 0:
        return None
    context = settings.get(ropes.ORIGINAL) or getattr(rope.scaling, "original_context", None)
    return PositionScaling(reader.positive_number(STRENGTH, strength), ropes.original_context(reader, context))
