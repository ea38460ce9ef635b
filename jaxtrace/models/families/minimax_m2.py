"""MiniMax-M2: sigmoid routers with a bias in the choice, RMS norms over whole queries and keys, partial rotation."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, mixtral, mixtures, ropes
from jaxtrace.models.families.reader import ConfigReader, renamed
from jaxtrace.models.families.weights import Weight

MODEL_TYPES = ("minimax_m2",)
ARCHITECTURES = ("MiniMaxM2ForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
WEIGHTS = (
    *mixtral.WEIGHTS,
    Weight("model.layers.{}.block_sparse_moe.e_score_correction_bias", mixtures.SELECTION_BIAS),
)
RENAMED = ((r"\.mlp\.(gate|experts|e_score_correction_bias)\b", r".block_sparse_moe.\1"),)  # as for Mixtral
IGNORED = ()

DEFAULTS = {
    "vocab_size": 200_064,
    "hidden_size": 3072,
    "intermediate_size": 1536,
    "num_hidden_layers": 62,
    "num_attention_heads": 48,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 196_608,
    "rms_norm_eps": 1e-6,
    "rope_theta": 5_000_000.0,
    "rotary_dim": None,
    "partial_rotary_factor": None,
    "tie_word_embeddings": False,
    "num_local_experts": 256,
    "num_experts_per_tok": 8,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a MiniMax-M2 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    own = renamed(config, {"num_experts": "num_local_experts"})
    with ConfigReader(own, source, DEFAULTS, "minimax_m2", ignored) as reader:
        reader.ignore("router_jitter_noise")  # only training adds noise
        reader.only("scoring_func", "sigmoid", None)
        if (rotated := reader.positive_or_none("rotary_dim")) and reader.config[ropes.FRACTION] is None:
            reader.config[ropes.FRACTION] = rotated / ropes.head_dim_of(reader)
        return common.llama_like(
            reader,
            "minimax_m2",
            (LayerKind(rope=ropes.rope(reader)),),
            activation=reader.activation("hidden_act"),
            qk_norm="width",
            experts=mixtures.experts(
                reader, "num_local_experts", "intermediate_size", scoring="sigmoid", selection_bias=True
            ),
        )
