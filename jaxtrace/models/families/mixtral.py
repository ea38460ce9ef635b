"""Mixtral: Mistral with experts in all layers."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, mixtures, ropes
from jaxtrace.models.families.reader import ConfigReader, renamed

MODEL_TYPES = ("mixtral",)
ARCHITECTURES = ("MixtralForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
_EXPERT = {"w1": "gate", "w3": "up", "w2": "down"}
WEIGHTS = common.weight_table(common.NORMS) + mixtures.expert_table(
    "block_sparse_moe.gate.weight",
    {f"block_sparse_moe.experts.{{expert}}.{name}.weight": param for name, param in _EXPERT.items()},
    {
        **{f"block_sparse_moe.{name}": params for name, params in mixtures.STACKED_EXPERTS.items()},
        **{f"block_sparse_moe.experts.{name}": (param,) for name, param in _EXPERT.items()},
    },
)
RENAMED = ((r"\.mlp\.(gate|experts)\.", r".block_sparse_moe.\1."),)  # names of modules in transformers 5
IGNORED = ()

DEFAULTS = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1_000_000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Mixtral config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    own = renamed(config, {"num_experts": "num_local_experts"})
    with ConfigReader(own, source, DEFAULTS, "mixtral", ignored) as reader:
        reader.ignore("router_jitter_noise")  # only training adds noise
        return common.llama_like(
            reader,
            "mixtral",
            (LayerKind(reader.positive_or_none("sliding_window"), ropes.rope(reader)),),
            activation=reader.activation("hidden_act"),
            experts=mixtures.experts(reader, "num_local_experts", "intermediate_size"),
        )
