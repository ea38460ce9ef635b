"""OLMo 3: OLMo 2 with sliding windows in three of four layers."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.families import common, olmo2, ropes
from jaxtrace.models.families.reader import ConfigReader

MODEL_TYPES = ("olmo3",)
ARCHITECTURES = ("Olmo3ForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS_AFTER)
RENAMED = ()
IGNORED = ()

# transformers 5 gives a `rope_theta` outside of `rope_parameters` to full layers only.
BASES = {"sliding_attention": 500_000.0, "full_attention": "rope_theta"}
DEFAULTS = olmo2.DEFAULTS | {"rope_theta": 500_000.0, "sliding_window": 4096, "layer_types": None}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map an OLMo 3 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "olmo3", ignored) as reader:
        rope = ropes.ropes_by_type(reader, BASES)
        return olmo2.olmo(reader, "olmo3", common.alternating_pattern(reader, 4, rope))
