"""GLM-4.5, 4.6 and 4.7: sigmoid routers with a bias in the choice, a shared expert, partial rotary positions."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, mixtures, ropes
from jaxtrace.models.families.reader import ConfigReader, renamed

MODEL_TYPES = ("glm4_moe",)
ARCHITECTURES = ("Glm4MoeForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = common.weight_table(common.NORMS) + mixtures.BIASED_EXPERTS + mixtures.shared_table("mlp.shared_experts")
RENAMED = ()
IGNORED = (r"layers\.(46|92)\..+",)  # the layer after the last one, which drafts tokens; as in transformers

DEFAULTS = mixtures.BIASED_EXPERTS_DEFAULTS | {
    "vocab_size": 151_552,
    "hidden_size": 4096,
    "intermediate_size": 10_944,
    "num_hidden_layers": 46,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 0.5,
    "attention_bias": False,
    "use_qk_norm": False,
    "tie_word_embeddings": False,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "first_k_dense_replace": 1,
}
REFUSED = mixtures.BIASED_EXPERTS_REFUSED


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a GLM-4.5 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    own = renamed(config, {"num_local_experts": "n_routed_experts"})
    with ConfigReader(own, source, DEFAULTS, "glm4_moe", ignored) as reader:
        reader.ignore("num_mtp_layers", "num_nextn_predict_layers")  # layers that draft tokens
        if reader.get("head_dim") is None:  # transformers rounds down, as its own default needs
            reader.config["head_dim"] = reader.positive("hidden_size") // reader.positive("num_attention_heads")
        kind = LayerKind(rope=ropes.rope(reader))
        return common.llama_like(
            reader,
            "glm4_moe",
            mixtures.dense_first(reader, [kind] * reader.layers()),
            activation=reader.activation("hidden_act"),
            qk_norm="head" if reader.flag("use_qk_norm") else None,
            qkv_bias=reader.flag("attention_bias"),
            experts=mixtures.biased_experts(reader),
        )
