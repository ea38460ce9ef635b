"""Llama 4, text part: sigmoid scores on experts' inputs, a shared expert, chunked attention, layers without rope."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind, PositionScaling, pattern_of
from jaxtrace.models.families import common, mixtures, ropes, smollm3
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.families.weights import Weight

MODEL_TYPES = ("llama4_text", "llama4")
ARCHITECTURES = ("Llama4ForCausalLM", "Llama4ForConditionalGeneration")
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
_MOE = ("layers", "{}", "feed_forward")
_EXPERTS = {"gate_up_proj": ("gate", "up"), "down_proj": ("down",)}
WEIGHTS = (
    *(
        replace(weight, name=weight.name.replace(".mlp.", ".feed_forward."), paired=weight.path[-1][0] in "qk")
        for weight in common.weight_table(common.NORMS)
    ),
    Weight("model.layers.{}.feed_forward.router.weight", (*_MOE, "router")),
    *(
        Weight(f"model.layers.{{}}.feed_forward.experts.{name}", (*_MOE, "experts", x), transposed=True, part=i)
        for name, parts in _EXPERTS.items()
        for i, x in enumerate(parts)
    ),
    *mixtures.shared_table("feed_forward.shared_expert"),
)
RENAMED = common.TEXT_RENAMED
IGNORED = (r"(vision_model|multi_modal_projector)\..*",)

DEFAULTS = {
    "vocab_size": 202_048,
    "hidden_size": 5120,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16_384,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "tie_word_embeddings": False,
    "num_experts_per_tok": 1,
    "num_local_experts": 16,
    "moe_layers": None,
    "interleave_moe_layer_step": 1,
    "use_qk_norm": True,
    "no_rope_layers": None,
    "no_rope_layer_interval": 4,
    "attention_chunk_size": 8192,
    "layer_types": None,
    "attn_temperature_tuning": True,
    "floor_scale": 8192,
    "attn_scale": 0.1,
    "attention_bias": False,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Llama 4 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    if config.get("model_type") == "llama4_text":
        return _text(config, source, ignored)
    with ConfigReader(config, source, {"tie_word_embeddings": False}, "llama4", ignored) as reader:
        reader.ignore("vision_config")
        reader.ignore(*(f"{name}_token_{form}" for name in ("image", "boi", "eoi") for form in ("index", "id")))
        return replace(_text(common.text_config(reader), source, ignored, "text_config."), family="llama4")


def _text(config: dict[str, Any], source: str, ignored: dict[str, str] | None, part: str = "") -> DecoderConfig:
    with ConfigReader(config, source, DEFAULTS, "llama4", ignored, part) as reader:
        reader.ignore("router_jitter_noise")  # only training adds noise
        bias, width = reader.flag("attention_bias"), reader.positive("intermediate_size")
        pattern, normed = _pattern(reader), reader.flag("use_qk_norm")
        if normed and any(getattr(kind.rope.scaling, "attention_factor", 1) != 1 for kind in pattern if kind.rope):
            reader.fail("has use_qk_norm, which undoes the attention_factor of its rotary positions; make it 1")
        decoder = common.llama_like(
            reader,
            "llama4_text",
            pattern,
            activation=reader.activation("hidden_act"),
            qk_norm="rotated" if normed else None,
            qkv_bias=bias,
            output_bias=bias,
            experts=mixtures.experts(
                reader,
                "num_local_experts",
                "intermediate_size",
                scoring="sigmoid",
                normalised=False,
                scores_on_inputs=True,
                shared=width,
            ),
        )
        return replace(decoder, feed_forward=reader.positive("intermediate_size_mlp"))


def _pattern(reader: ConfigReader) -> tuple[LayerKind, ...]:
    """Return the layer pattern: chunks where positions are rotated, scaled queries where they are not."""
    if reader.config["no_rope_layers"] == []:
        reader.config["no_rope_layers"] = None
    rope, rotated, layers = ropes.rope(reader), smollm3.rotated_layers(reader), range(reader.layers())
    chunk, step = reader.positive_or_none("attention_chunk_size"), reader.positive("interleave_moe_layer_step")
    sparse = common.numbers(reader, "moe_layers", tuple(range(step - 1, len(layers), step)))
    scaling = PositionScaling(reader.number("attn_scale"), reader.positive("floor_scale"), offset=1)
    scaling = scaling if reader.flag("attn_temperature_tuning") else None
    types = ["chunked_attention" if rotates and chunk else "full_attention" for rotates in rotated]
    known = ("full_attention", "chunked_attention") if chunk else ("full_attention",)
    return pattern_of(
        [
            LayerKind(
                rope=rope if rotated[i] else None,
                chunk=chunk if name == "chunked_attention" else None,
                position_scaling=None if rotated[i] else scaling,
                dense=i not in sparse,
            )
            for i, name in enumerate(common.layer_types(reader, types, known))
        ]
    )
