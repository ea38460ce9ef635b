"""Qwen3-Next: Qwen3.5 with experts in all layers or in some, and with another layout of the delta nets' weights."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.families import common, mixtures, qwen3_5, qwen3_5_moe
from jaxtrace.models.families.reader import ConfigReader

MODEL_TYPES = ("qwen3_next",)
ARCHITECTURES = ("Qwen3NextForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
_PROJECTIONS = {"in_proj_qkvz.weight": ("q", "k", "v", "gate"), "in_proj_ba.weight": ("beta", "decay")}
WEIGHTS = (
    *qwen3_5.weight_table(_PROJECTIONS, by_head=True),
    *mixtures.EXPERTS,
    *mixtures.shared_table("mlp.shared_expert"),
)
RENAMED = ()
IGNORED = (r"mtp\..*",)  # the layers that predict a second token
REFUSED = qwen3_5.REFUSED

DEFAULTS = qwen3_5_moe.DEFAULTS | {
    "vocab_size": 151_936,
    "intermediate_size": 5632,
    "num_hidden_layers": 48,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": None,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Qwen3-Next config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "qwen3_next", ignored) as reader:
        return common.llama_like(
            reader,
            "qwen3_next",
            mixtures.expert_layers(reader, qwen3_5.layers(reader)),
            experts=mixtures.shared_experts(reader, normalised=reader.flag("norm_topk_prob")),
            **qwen3_5.choices(reader),
        )
