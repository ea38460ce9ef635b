"""gpt-oss: experts with biases and a clamped activation, learned attention sinks, and windows in every other layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxtrace.models.config import ClampedGate, DecoderConfig
from jaxtrace.models.families import common, mixtures, ropes
from jaxtrace.models.families.reader import ConfigReader, renamed
from jaxtrace.models.families.weights import Weight

MODEL_TYPES = ("gpt_oss",)
ARCHITECTURES = ("GptOssForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
_LAYER, _BLOCK = "model.layers.{}.", ("layers", "{}")
_FEED_FORWARD, _EXPERTS = (*_BLOCK, "feed_forward"), (*_BLOCK, "feed_forward", "experts")
WEIGHTS = (
    *common.weight_table(common.NORMS),
    Weight(f"{_LAYER}self_attn.sinks", (*_BLOCK, "attention", "sinks")),
    Weight(f"{_LAYER}mlp.router.weight", (*_FEED_FORWARD, "router")),
    Weight(f"{_LAYER}mlp.router.bias", (*_FEED_FORWARD, "router_bias")),
    # Outputs of gate and up take turns.
    *(
        Weight(f"{_LAYER}mlp.experts.gate_up_proj{end}", (*_EXPERTS, x + end), not end, part=i, by_head=True)
        for end in ("", "_bias")
        for i, x in enumerate(("gate", "up"))
    ),
    *(Weight(f"{_LAYER}mlp.experts.down_proj{end}", (*_EXPERTS, f"down{end}"), not end) for end in ("", "_bias")),
    # Names of MLX, which splits gate and up and does not transpose, as llama.cpp.
    *(
        Weight(f"{_LAYER}mlp.experts.{x}_proj.{kind}", (*_EXPERTS, x + end))
        for kind, end in (("weight", ""), ("bias", "_bias"))
        for x in ("gate", "up", "down")
    ),
)
RENAMED = ()
IGNORED = ()

DEFAULTS = {
    "vocab_size": 201_088,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 150_000.0,
    "rope_parameters": {
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
        ropes.ORIGINAL: 4096,
    },
    "attention_bias": True,
    "sliding_window": 128,
    "layer_types": None,
    "tie_word_embeddings": False,
    "num_local_experts": 128,
    "num_experts_per_tok": 4,
    "swiglu_alpha": 1.702,
    "swiglu_limit": 7.0,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a gpt-oss config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    own = renamed(config, {"num_experts": "num_local_experts"})
    with ConfigReader(own, source, DEFAULTS, "gpt_oss", ignored) as reader:
        reader.ignore("hidden_act")  # the experts' activation is fixed
        reader.ignore("initial_context_length", "experts_per_token")  # names of OpenAI's code, beside transformers'
        rope = ropes.rope(reader)
        bias = reader.flag("attention_bias")
        clamped = ClampedGate(reader.number("swiglu_limit"), reader.number("swiglu_alpha"))
        experts = mixtures.experts(reader, "num_local_experts", "intermediate_size")
        return common.llama_like(
            reader,
            "gpt_oss",
            common.alternating_pattern(reader, 2, {"sliding_attention": rope, "full_attention": rope}),
            learned_sink=True,
            qkv_bias=bias,
            output_bias=bias,
            experts=replace(experts, router_bias=True, bias=True, clamped=clamped),
        )
