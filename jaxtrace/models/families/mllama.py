"""Llama 3.2 Vision: Llama 3.1 with layers between its own that look at images."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind, VisionConfig, pattern_of
from jaxtrace.models.families import common
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.families.weights import Weight

MODEL_TYPES = ("mllama",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING

_GATES = {"cross_attn_attn_gate": ("attention_gate",), "cross_attn_mlp_gate": ("feed_forward_gate",)}
_VISION = {
    "patch_embedding.weight": ("patch_embedding",),
    "class_embedding": ("class_embedding",),
    "pre_tile_positional_embedding.embedding.weight": ("pre_tile_embedding",),
    "pre_tile_positional_embedding.gate": ("pre_tile_gate",),
    "post_tile_positional_embedding.embedding.weight": ("post_tile_embedding",),
    "post_tile_positional_embedding.gate": ("post_tile_gate",),
    "gated_positional_embedding.embedding": ("position_embedding",),
    "gated_positional_embedding.tile_embedding.weight": ("tile_position_embedding",),
    "gated_positional_embedding.gate": ("position_gate",),
    **{f"layernorm_{x}.{part}": (f"{x}_norm", part) for x in ("pre", "post") for part in ("weight", "bias")},
}
_VISION_BLOCK = {
    **{f"input_layernorm.{part}": ("attention_norm", part) for part in ("weight", "bias")},
    **{f"self_attn.{x}_proj.weight": ("attention", x) for x in "qkvo"},
    **{f"post_attention_layernorm.{part}": ("feed_forward_norm", part) for part in ("weight", "bias")},
    "mlp.fc1.weight": ("feed_forward", "up"),
    "mlp.fc1.bias": ("feed_forward", "up_bias"),
    "mlp.fc2.weight": ("feed_forward", "down"),
    "mlp.fc2.bias": ("feed_forward", "down_bias"),
    "gate_attn": ("attention_gate",),
    "gate_ffn": ("feed_forward_gate",),
}

WEIGHTS = (
    *common.weight_table(common.NORMS | _GATES),
    *(Weight(f"vision_model.{name}", ("vision", *path)) for name, path in _VISION.items()),
    *(
        Weight(f"vision_model.{stack}.layers.{{}}.{name}", ("vision", layers, "{}", *path))
        for stack, layers in (("transformer", "layers"), ("global_transformer", "global_layers"))
        for name, path in _VISION_BLOCK.items()
    ),
    *(Weight(f"multi_modal_projector.{part}", ("vision", "projector", part)) for part in ("weight", "bias")),
)

# The hub's names, and those that transformers has in memory since 4.52. A layer looks at the text or at an image, never
# at both, so one name serves.
RENAMED = (
    (r"^(language_model\.model|model\.language_model)\.", "model."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^model\.(vision_model|multi_modal_projector)\.", r"\1."),
    (r"^(model\.layers\.\d+)\.cross_attn\.", r"\1.self_attn."),
)
IGNORED = (common.ROTARY_BUFFERS,)

EXTRA_TOKENS = 8  # rows of the embedding beyond the vocabulary, for tokens that are never predicted
TEXT_DEFAULTS = {
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
    "tie_word_embeddings": False,
}
VISION_DEFAULTS = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_global_layers": 8,
    "attention_heads": 16,
    "num_channels": 3,
    "image_size": 448,
    "patch_size": 14,
    "max_num_tiles": 4,
    "intermediate_layers_indices": [3, 7, 15, 23, 30],
    "vision_output_dim": 7680,
    "norm_eps": 1e-5,
}


def decoder_config(config: dict[str, Any], source: str) -> DecoderConfig:
    """A Llama 3.2 Vision config.json as a DecoderConfig; raises ConfigError for anything it does not understand."""
    with ConfigReader(config, source, {"image_token_index": 128_256}) as reader:
        reader.ignore("tie_word_embeddings")  # the text's part says it
        image_token = reader.positive("image_token_index")
        vision = _vision(_said(reader.mapping("vision_config")), f"{source} (vision_config)")
        decoder = _text(_said(reader.mapping("text_config")), f"{source} (text_config)", image_token, vision)
        if image_token >= (tokens := decoder.vocab + EXTRA_TOKENS):
            reader.fail(f"has image_token_index={image_token}, beyond the {tokens} tokens it embeds")
        return decoder


def _said(part: dict[str, Any]) -> dict[str, Any]:
    """Without what is null, which means the default."""
    return {name: value for name, value in part.items() if value is not None}


def _text(config: dict[str, Any], source: str, image_token: int, vision: VisionConfig) -> DecoderConfig:
    with ConfigReader(config, source, TEXT_DEFAULTS) as reader:
        reader.ignore("dropout")
        reader.only("tie_word_embeddings", False)
        reader.only("hidden_act", "silu")
        looking, rope = _numbers(reader, "cross_attention_layers"), common.rope(reader)
        kinds = [
            LayerKind(rope=None, cross_attention=True) if layer in looking else LayerKind(rope=rope)
            for layer in range(reader.positive("num_hidden_layers"))
        ]
        return common.llama_like(
            reader, "mllama", pattern_of(kinds), extra_tokens=EXTRA_TOKENS, image_token=image_token, vision=vision
        )


def _vision(config: dict[str, Any], source: str) -> VisionConfig:
    with ConfigReader(config, source, VISION_DEFAULTS) as reader:
        reader.ignore("tie_word_embeddings")
        reader.only("hidden_act", "gelu")
        vision = VisionConfig(
            embed=reader.positive("hidden_size"),
            layers=reader.positive("num_hidden_layers"),
            global_layers=reader.positive("num_global_layers"),
            heads=reader.positive("attention_heads"),
            feed_forward=reader.positive("intermediate_size"),
            image_size=reader.positive("image_size"),
            patch_size=reader.positive("patch_size"),
            channels=reader.positive("num_channels"),
            max_tiles=reader.positive("max_num_tiles"),
            aspect_ratios=_aspect_ratios(reader),
            outputs=_numbers(reader, "intermediate_layers_indices"),
            norm_eps=reader.number("norm_eps"),
        )
        if vision.embed % vision.heads:
            reader.fail(f"has hidden_size={vision.embed}, which {vision.heads} attention heads do not divide")
        if vision.image_size % vision.patch_size:
            reader.fail(f"has image_size={vision.image_size}, which patches of {vision.patch_size} do not fill")
        if not vision.outputs or max(vision.outputs) >= vision.layers:
            reader.fail(f"has intermediate_layers_indices={list(vision.outputs)} of {vision.layers} layers")
        if (width := reader.positive("vision_output_dim")) != vision.output_width:
            reader.fail(f"has vision_output_dim={width}, where the layers shown are {vision.output_width} wide")
        return vision


def _numbers(reader: ConfigReader, name: str) -> tuple[int, ...]:
    value = reader.get(name)
    if not isinstance(value, list) or not all(isinstance(x, int) and x >= 0 for x in value):
        reader.fail(f"has {name}={value!r}, which must be a list of layer numbers")
    return tuple(value)


def _aspect_ratios(reader: ConfigReader) -> tuple[tuple[int, int], ...]:
    """Every shape of so many tiles at most, in the order in which the image processor numbers them."""
    tiles = reader.positive("max_num_tiles")
    sides = range(1, tiles + 1)
    ratios = [[height, width] for height in sides for width in sides if height * width <= tiles]
    reader.only("supported_aspect_ratios", ratios)
    return tuple((height, width) for height, width in ratios)
