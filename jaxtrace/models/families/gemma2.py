"""Gemma 2."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, ropes
from jaxtrace.models.families.reader import ConfigReader

MODEL_TYPES = ("gemma2",)
ARCHITECTURES = ("Gemma2ForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS_AROUND)
RENAMED = ()
IGNORED = ()
REFUSED = {"use_bidirectional_attention": "attention is causal"}

DEFAULTS = {
    "vocab_size": 256_000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "attention_bias": False,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "layer_types": None,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "use_bidirectional_attention": None,
    "tie_word_embeddings": True,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Gemma 2 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "gemma2", ignored) as reader:
        reader.only("sliding_window_size", reader.positive("sliding_window"), None)
        rope = ropes.rope(reader)
        pattern = common.alternating_pattern(reader, 2, {"sliding_attention": rope, "full_attention": rope})
        return gemma(reader, "gemma2", pattern)


def gemma(reader: ConfigReader, family: str, pattern: tuple[LayerKind, ...], **choices: Any) -> DecoderConfig:
    """Build the config that Gemma 2 and 3 share: norms of 1 + w, post-norms, scaled embeddings and soft-caps."""
    reader.only("use_bidirectional_attention", None, False)
    activation = reader.activation("hidden_activation")
    reader.only("hidden_act", reader.get("hidden_activation"), None)
    bias = reader.flag("attention_bias")
    return common.llama_like(
        reader,
        family,
        pattern,
        activation=activation,
        norm_offset=1.0,
        norm_placement="around",
        embedding_scale=reader.positive("hidden_size") ** 0.5,
        query_scale=reader.number("query_pre_attn_scalar") ** -0.5,
        score_soft_cap=reader.number_or_none("attn_logit_softcapping"),
        logit_soft_cap=reader.number_or_none("final_logit_softcapping"),
        qkv_bias=bias,
        output_bias=bias,
        **choices,
    )
