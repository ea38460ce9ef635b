"""dots.llm1: Qwen3's attention, sigmoid routers with a bias in the choice, shared experts."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, mixtures, ropes
from jaxtrace.models.families.reader import ConfigReader, renamed

MODEL_TYPES = ("dots1",)
ARCHITECTURES = ("Dots1ForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS) + mixtures.BIASED_EXPERTS + mixtures.shared_table("mlp.shared_experts")
RENAMED = ()
IGNORED = ()

DEFAULTS = mixtures.BIASED_EXPERTS_DEFAULTS | {
    "vocab_size": 152_064,
    "hidden_size": 4608,
    "intermediate_size": 10_944,
    "num_hidden_layers": 62,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "sliding_window": 4096,
    "max_window_layers": 62,
    "layer_types": None,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "moe_intermediate_size": 1408,
    "n_routed_experts": None,
    "n_shared_experts": None,
    "num_experts_per_tok": None,
    "norm_topk_prob": False,
    "first_k_dense_replace": 0,
}
REFUSED = mixtures.BIASED_EXPERTS_REFUSED


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a dots.llm1 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    own = renamed(config, {"num_local_experts": "n_routed_experts"})
    with ConfigReader(own, source, DEFAULTS, "dots1", ignored) as reader:
        bias = reader.flag("attention_bias")
        return common.llama_like(
            reader,
            "dots1",
            mixtures.dense_first(reader, _layers(reader)),
            activation=reader.activation("hidden_act"),
            qk_norm="head",
            qkv_bias=bias,
            output_bias=bias,
            experts=mixtures.biased_experts(reader),
        )


def _layers(reader: ConfigReader) -> list[LayerKind]:
    """Return the layers, without experts: by default windows from `max_window_layers`."""
    rope, first = ropes.rope(reader), reader.whole("max_window_layers")
    kinds, types = {"full_attention": LayerKind(rope=rope)}, ["full_attention"] * reader.layers()
    if window := reader.positive_or_none("sliding_window"):
        kinds["sliding_attention"] = LayerKind(window, rope)
        types[first:] = ["sliding_attention"] * len(types[first:])
    return [kinds[name] for name in common.layer_types(reader, types, list(kinds))]
