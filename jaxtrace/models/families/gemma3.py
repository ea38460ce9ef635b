"""Gemma 3: the text models, and the text part of the multi-modal models."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.families import common, gemma2, ropes
from jaxtrace.models.families.reader import ConfigReader

MODEL_TYPES = ("gemma3_text", "gemma3")
ARCHITECTURES = ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS_AROUND)
RENAMED = common.TEXT_RENAMED
REFUSED = gemma2.REFUSED | {
    "attn_logit_softcapping": "transformers reads it and applies no cap",
    "final_logit_softcapping": "transformers caps the logits of the text models alone",
}
IGNORED = (r"(vision_tower|multi_modal_projector)\..*",)

BASES = {"sliding_attention": "rope_local_base_freq", "full_attention": "rope_theta"}
DEFAULTS = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": None,
    "_sliding_window_pattern": 6,
    "layer_types": None,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": False,
    "tie_word_embeddings": True,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Gemma 3 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    family = config["model_type"]
    if family == "gemma3_text":
        return _text(family, config, source, ignored)
    with ConfigReader(config, source, {"tie_word_embeddings": True}, "gemma3", ignored) as reader:
        reader.ignore("vision_config", "mm_tokens_per_image")
        reader.ignore(*(f"{name}_token_{form}" for name in ("image", "boi", "eoi") for form in ("index", "id")))
        return _text(family, common.text_config(reader), source, ignored, "text_config.")


def _text(
    family: str, config: dict[str, Any], source: str, ignored: dict[str, str] | None, part: str = ""
) -> DecoderConfig:
    with ConfigReader(config, source, DEFAULTS, "gemma3", ignored, part) as reader:
        reader.only("attn_logit_softcapping", None)  # transformers reads it but applies no cap
        if family == "gemma3":
            reader.only("final_logit_softcapping", None)  # the multi-modal class applies no cap either
        rope = ropes.ropes_by_type(reader, BASES)
        default = reader.positive("_sliding_window_pattern")
        period = reader.positive_or_none("sliding_window_pattern") or default
        return gemma2.gemma(reader, family, common.alternating_pattern(reader, period, rope), qk_norm="head")
