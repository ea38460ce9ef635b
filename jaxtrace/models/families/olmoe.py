"""OLMoE: experts in all layers, and RMS norms over whole queries and keys."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, mixtures, ropes
from jaxtrace.models.families.reader import ConfigReader, renamed

MODEL_TYPES = ("olmoe",)
ARCHITECTURES = ("OlmoeForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS) + mixtures.EXPERTS
RENAMED = ()
IGNORED = ()

DEFAULTS = {
    "vocab_size": 50_304,
    "hidden_size": 2048,
    "intermediate_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "norm_topk_prob": False,
}
REFUSED = {"clip_qkv": "no published model clips q, k and v"}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map an OLMoE config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    own = renamed(config, {"num_local_experts": "num_experts"})
    with ConfigReader(own, source, DEFAULTS, "olmoe", ignored) as reader:
        reader.only("clip_qkv", None)
        bias = reader.flag("attention_bias")
        return common.llama_like(
            reader,
            "olmoe",
            (LayerKind(rope=ropes.rope(reader)),),
            activation=reader.activation("hidden_act"),
            qk_norm="width",
            qkv_bias=bias,
            output_bias=bias,
            experts=mixtures.experts(
                reader, "num_experts", "intermediate_size", normalised=reader.flag("norm_topk_prob")
            ),
        )
