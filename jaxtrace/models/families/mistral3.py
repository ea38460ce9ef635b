"""Mistral 3: the text part of multi-modal models, which is Mistral or Ministral 3."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.families import common, ministral3, mistral
from jaxtrace.models.families.reader import ConfigReader

MODEL_TYPES = ("mistral3",)
ARCHITECTURES = ("Mistral3ForConditionalGeneration",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS)
RENAMED = common.TEXT_RENAMED
IGNORED = (r"(vision_tower|multi_modal_projector)\..*",)

# Mistral Small 3.1, the default of `text_config`.
TEXT_DEFAULTS = {
    "model_type": "mistral",
    "vocab_size": 131_072,
    "hidden_size": 5120,
    "intermediate_size": 32_768,
    "num_hidden_layers": 40,
    "head_dim": 128,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1_000_000_000.0,
    "sliding_window": None,
}
DEFAULTS = {"tie_word_embeddings": True, "text_config": TEXT_DEFAULTS}
TEXT_FAMILIES = {"mistral": mistral, "ministral3": ministral3}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Mistral 3 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "mistral3", ignored) as reader:
        reader.ignore("vision_config", "vision_feature_layer", "image_token_index", "image_token_id")
        reader.ignore("projector_hidden_act", "multimodal_projector_bias", "spatial_merge_size")
        text = reader.mapping("text_config")
        kind = text.get("model_type", "mistral")
        if kind not in list(TEXT_FAMILIES):  # a list, as the kind may be unhashable
            known = " and ".join(TEXT_FAMILIES)
            reader.fail(f"has text_config of model_type {kind!r}; jaxtrace supports {known}")
        # Ministral 3's hub configs say it in `text_config`; what transformers 5 writes at the top comes first.
        tied = reader.flag("tie_word_embeddings")
        if "tie_word_embeddings" in config or "tie_word_embeddings" not in text:
            text = text | {"tie_word_embeddings": tied}
        reasons: dict[str, str] = {}
        decoder = TEXT_FAMILIES[kind].decoder_config(text, f"{source} (text_config)", reasons)
        if ignored is not None:
            ignored |= {f"text_config.{name}": reason for name, reason in reasons.items()}
        return dataclasses.replace(decoder, family="mistral3")
