"""FlexOlmo: OLMo 2 with experts in all layers."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, mixtures, olmo2, ropes
from jaxtrace.models.families.reader import ConfigReader, renamed

MODEL_TYPES = ("flex_olmo",)
ARCHITECTURES = ("FlexOlmoForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS_AFTER) + mixtures.EXPERTS
RENAMED = ()
IGNORED = ()

DEFAULTS = olmo2.DEFAULTS | {
    "vocab_size": 100_352,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 500_000.0,
    "num_experts": 7,
    "num_experts_per_tok": 5,
    "norm_topk_prob": False,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a FlexOlmo config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    own = renamed(config, {"num_local_experts": "num_experts"})
    with ConfigReader(own, source, DEFAULTS, "flex_olmo", ignored) as reader:
        experts = mixtures.experts(reader, "num_experts", "intermediate_size", normalised=reader.flag("norm_topk_prob"))
        return olmo2.olmo(reader, "flex_olmo", (LayerKind(rope=ropes.rope(reader)),), experts=experts)
