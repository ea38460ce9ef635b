"""Qwen3.5: gated delta nets beside attention with gated outputs; the text models, and the text part of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtrace.models.config import DecoderConfig, DeltaNet, LayerKind, pattern_of
from jaxtrace.models.families import common, ropes
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.families.weights import Weight

MODEL_TYPES = ("qwen3_5", "qwen3_5_text")
ARCHITECTURES = ("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM")
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
RENAMED = common.TEXT_RENAMED
IGNORED = (r"(visual|mtp)\..*",)  # the image encoder, and the layers that predict a second token

# Parameters of a delta net, in the order in which a tensor concatenates them.
PROJECTIONS = {
    "in_proj_qkv.weight": ("q", "k", "v"),
    "in_proj_z.weight": ("gate",),
    "in_proj_b.weight": ("beta",),
    "in_proj_a.weight": ("decay",),
}
_DELTA_NET = {
    "conv1d.weight": ("q_conv", "k_conv", "v_conv"),
    "A_log": ("decay_scale",),
    "dt_bias": ("decay_bias",),
    "norm.weight": ("norm.weight",),
    "out_proj.weight": ("o",),
}
_LAYER, _PATH = "model.layers.{}", ("layers", "{}")


def weight_table(projections: Mapping[str, Sequence[str]], *, by_head: bool = False) -> tuple[Weight, ...]:
    """Return the weight table of a decoder without experts.

    Args:
      projections: parameters of a delta net by the name of the tensor that concatenates them.
      by_head: True if these tensors concatenate the parameters key head by key head.
    """
    return (
        *(line for line in common.weight_table(common.NORMS) if ".q_proj." not in line.name),
        *(
            Weight(f"{_LAYER}.self_attn.q_proj.{kind}", (*_PATH, "attention", name + end), part=i, by_head=True)
            for i, name in enumerate(("q", "output_gate"))
            for kind, end in (("weight", ""), ("bias", "_bias"))
        ),
        *(
            Weight(f"{_LAYER}.linear_attn.{tensor}", (*_PATH, "delta_net", *name.split(".")), part=i, by_head=heads)
            for tensors, heads in ((projections, by_head), (_DELTA_NET, False))
            for tensor, names in tensors.items()
            for i, name in enumerate(names)
        ),
    )


WEIGHTS = weight_table(PROJECTIONS)

# Attributes that Qwen3.5 shares with its mixtures of experts.
SHARED_DEFAULTS = {
    "vocab_size": 248_320,
    "num_attention_heads": 16,
    "hidden_act": "silu",
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 0.25,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "layer_types": None,
    "full_attention_interval": 4,
    "attn_output_gate": True,
    "output_gate_type": "swish",
}
DEFAULTS = SHARED_DEFAULTS | {
    "hidden_size": 4096,
    "intermediate_size": 12_288,
    "num_hidden_layers": 32,
    "num_key_value_heads": 4,
}
REFUSED = {
    "attn_output_gate": "transformers ignores it and gates the outputs",
    "output_gate_type": "transformers ignores it and computes swish",
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Qwen3.5 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    family = config["model_type"]
    if family == "qwen3_5_text":
        return _text(family, config, source, ignored)
    return _text(family, text_config(config, source, "qwen3_5", ignored), source, ignored, "text_config.")


def text_config(config: dict[str, Any], source: str, family: str, ignored: dict[str, str] | None) -> dict[str, Any]:
    """Return the config of the text part of a multi-modal model."""
    with ConfigReader(config, source, {"tie_word_embeddings": False}, family, ignored) as reader:
        reader.ignore("vision_config", "language_model_only")
        reader.ignore("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        return common.text_config(reader)


def _text(
    family: str, config: dict[str, Any], source: str, ignored: dict[str, str] | None, part: str = ""
) -> DecoderConfig:
    with ConfigReader(config, source, DEFAULTS, "qwen3_5", ignored, part) as reader:
        return common.llama_like(reader, family, pattern_of(layers(reader)), **choices(reader))


def choices(reader: ConfigReader) -> dict[str, Any]:
    """Return the fields of DecoderConfig that differ from Llama's."""
    reader.only("attn_output_gate", True)
    reader.only("output_gate_type", "swish", "silu")
    return {
        "activation": reader.activation("hidden_act"),
        "norm_offset": 1.0,
        "qk_norm": "head",
        "qkv_bias": reader.flag("attention_bias"),
        "output_bias": reader.flag("attention_bias"),
        "output_gate": True,
    }


def layers(reader: ConfigReader) -> list[LayerKind]:
    """Return the kinds of all layers, without experts; by default every fourth layer has full attention."""
    # `mrope_section` and `mrope_interleaved` choose among a token's three positions, which are equal in a text.
    settings = {name: x for name, x in ropes.rope_settings(reader).items() if not name.startswith("mrope_")}
    keys, values = reader.positive("linear_num_key_heads"), reader.positive("linear_num_value_heads")
    if values % keys:
        reader.fail(f"has linear_num_value_heads={values}, which is not a multiple of linear_num_key_heads={keys}")
    net = DeltaNet(
        keys,
        values,
        reader.positive("linear_key_head_dim"),
        reader.positive("linear_value_head_dim"),
        reader.positive("linear_conv_kernel_dim"),
    )
    rope, interval = ropes.rope_of(reader, settings), reader.positive("full_attention_interval")
    kinds = {"linear_attention": LayerKind(rope=None, delta_net=net), "full_attention": LayerKind(rope=rope)}
    types = ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(reader.layers())]
    return [kinds[name] for name in common.layer_types(reader, types, list(kinds))]
