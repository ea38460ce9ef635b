"""Gemma 4: the text models, and the text part of the multi-modal models, dense or with experts."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from jaxtrace.models.config import DecoderConfig, pattern_of
from jaxtrace.models.families import common, mixtures
from jaxtrace.models.families.gemma4_layers import experts, layer_kinds
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.families.weights import Weight

MODEL_TYPES = ("gemma4_text", "gemma4", "gemma4_unified_text", "gemma4_unified")
ARCHITECTURES = tuple(
    f"Gemma4{kind}For{use}" for kind in ("", "Unified") for use in ("CausalLM", "ConditionalGeneration")
)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
_LAYER_INPUT = {
    "per_layer_input_gate.weight": ("layer_input", "gate"),
    "per_layer_projection.weight": ("layer_input", "down"),
    "post_per_layer_input_norm.weight": ("layer_input", "norm", "weight"),
    "layer_scalar": ("scalar",),
}
# In a layer of experts the dense feed-forward block is beside them, and the norm before it is inside the block.
_BESIDE = {
    **{f"mlp.{x}_proj.weight": ("feed_forward", "dense", x) for x in ("gate", "up", "down")},
    "pre_feedforward_layernorm.weight": ("feed_forward", "dense_norm", "weight"),
    "post_feedforward_layernorm_1.weight": ("feed_forward", "post_dense_norm", "weight"),
    "pre_feedforward_layernorm_2.weight": ("feed_forward", "expert_norm", "weight"),
    "post_feedforward_layernorm_2.weight": ("feed_forward", "post_expert_norm", "weight"),
    "router.scale": ("feed_forward", "router_norm", "weight"),
    "router.per_expert_scale": ("feed_forward", "expert_scale"),
}
_STACKED_EXPERTS = {name.removeprefix("mlp."): params for name, params in mixtures.STACKED_EXPERTS.items()}
WEIGHTS = (
    *common.weight_table(common.NORMS_AROUND | _LAYER_INPUT),
    *(Weight(f"model.layers.{{}}.{name}", ("layers", "{}", *path)) for name, path in _BESIDE.items()),
    *mixtures.expert_table("router.proj.weight", {}, _STACKED_EXPERTS),
    Weight("model.embed_tokens_per_layer.weight", ("layer_inputs", "embedding")),
    Weight("model.per_layer_model_projection.weight", ("layer_inputs", "projection")),
    Weight("model.per_layer_projection_norm.weight", ("layer_inputs", "norm", "weight")),
)
RENAMED = common.TEXT_RENAMED
IGNORED = (r"((vision|audio)_tower|embed_(vision|audio)|vision_embedder)\..*",)

PLACEHOLDERS = {"image_token_id": 258_880, "video_token_id": 258_884, "audio_token_id": 258_881}
DEFAULTS = {
    "vocab_size": 262_144,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 30,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "global_head_dim": 512,
    "num_global_key_value_heads": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "pad_token_id": 0,
    "rope_parameters": None,
    "attention_bias": False,
    "sliding_window": 512,
    "layer_types": None,
    "final_logit_softcapping": None,
    "use_bidirectional_attention": None,
    "vocab_size_per_layer_input": 262_144,
    "hidden_size_per_layer_input": 256,
    "attention_k_eq_v": False,
    "num_kv_shared_layers": 0,
    "enable_moe_block": False,
    "num_experts": None,
    "top_k_experts": None,
    "moe_intermediate_size": None,
    "use_double_wide_mlp": False,
    "tie_word_embeddings": True,
}
UNIFIED_DEFAULTS = DEFAULTS | {
    "max_position_embeddings": 262_144,
    "sliding_window": 1024,
    "use_bidirectional_attention": "vision",
    "hidden_size_per_layer_input": 0,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Gemma 4 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    family = config["model_type"]
    if family.endswith("_text"):
        return _text(family, config, source, ignored)
    defaults = PLACEHOLDERS | {"tie_word_embeddings": True}
    with ConfigReader(config, source, defaults, family, ignored) as reader:
        reader.ignore("vision_config", "audio_config", "vision_soft_tokens_per_image", "eoa_token_index")
        reader.ignore(*(f"{name}_token_id" for name in ("boi", "eoi", "boa", "eoa")))
        placeholders = {reader.whole(name) for name in PLACEHOLDERS if reader.get(name) is not None}
        return _text(family, common.text_config(reader), source, ignored, "text_config.", placeholders)


def _text(
    family: str,
    config: dict[str, Any],
    source: str,
    ignored: dict[str, str] | None,
    part: str = "",
    placeholders: Set[int] = frozenset(),
) -> DecoderConfig:
    known = family.removesuffix("_text")
    defaults = UNIFIED_DEFAULTS if known == "gemma4_unified" else DEFAULTS
    with ConfigReader(config, source, defaults, known, ignored, part) as reader:
        if known == "gemma4_unified":  # transformers' class has no per-layer embeddings and no experts
            reader.only("hidden_size_per_layer_input", 0)
            reader.only("enable_moe_block", False)
        reader.only("use_bidirectional_attention", None, "vision")  # the latter changes the attention of images only
        vocab_size, layer_input = reader.positive("vocab_size"), reader.whole("hidden_size_per_layer_input")
        layer_input_vocab = 0
        if not layer_input:
            reader.ignore("vocab_size_per_layer_input")
        elif (layer_input_vocab := reader.positive("vocab_size_per_layer_input")) < vocab_size:
            reader.fail(f"has vocab_size_per_layer_input={layer_input_vocab}, which must be at least {vocab_size}")
        # Without the image, the multi-modal model embeds a placeholder as padding.
        aliased = sorted(token for token in placeholders if token < vocab_size)
        padding = reader.whole("pad_token_id") if aliased else 0
        if padding >= vocab_size:
            reader.fail(f"has pad_token_id={padding}, which must be below {vocab_size}")
        bias = reader.flag("attention_bias")
        return common.llama_like(
            reader,
            family,
            pattern_of(layer_kinds(reader, ignored)),
            activation=reader.activation("hidden_activation"),
            experts=experts(reader),
            norm_placement="around",
            qk_norm="head",
            value_norm=True,
            embedding_scale=reader.positive("hidden_size") ** 0.5,
            query_scale=1.0,
            logit_soft_cap=reader.number_or_none("final_logit_softcapping"),
            qkv_bias=bias,
            output_bias=bias,
            layer_input=layer_input,
            layer_input_vocab=layer_input_vocab,
            layer_scalar=True,
            token_aliases=tuple((token, padding) for token in aliased),
        )
