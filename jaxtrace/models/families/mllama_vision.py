"""Image encoder of Llama 3.2 Vision: its weight table and its part of the config."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.families import common
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.families.weights import Weight
from jaxtrace.models.vision_config import VisionConfig

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
    *(Weight(f"vision_model.{name}", ("vision", *path)) for name, path in _VISION.items()),
    *(
        Weight(f"vision_model.{stack}.layers.{{}}.{name}", ("vision", layers, "{}", *path))
        for stack, layers in (("transformer", "layers"), ("global_transformer", "global_layers"))
        for name, path in _VISION_BLOCK.items()
    ),
    *(Weight(f"multi_modal_projector.{part}", ("vision", "projector", part)) for part in ("weight", "bias")),
)

DEFAULTS = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_global_layers": 8,
    "attention_heads": 16,
    "num_channels": 3,
    "image_size": 448,
    "patch_size": 14,
    "max_num_tiles": 4,
    "intermediate_layers_indices": None,
    "vision_output_dim": 7680,
    "norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
OUTPUTS = (3, 7, 15, 23, 30)  # default where the config has null or nothing
MAX_TILES = 64


def vision_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> VisionConfig:
    """Map `vision_config` of a Llama 3.2 Vision config.json; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "mllama", ignored, "vision_config.") as reader:
        reader.flag("tie_word_embeddings")  # the encoder has no token embedding
        reader.only("hidden_act", "gelu")
        vision = VisionConfig(
            embed_dim=reader.positive("hidden_size"),
            num_layers=reader.layers(),
            global_layers=reader.layers("num_global_layers"),
            num_heads=reader.positive("attention_heads"),
            feed_forward=reader.positive("intermediate_size"),
            image_size=reader.positive("image_size"),
            patch_size=reader.positive("patch_size"),
            channels=reader.positive("num_channels"),
            max_tiles=reader.positive("max_num_tiles", MAX_TILES),
            aspect_ratios=_aspect_ratios(reader),
            outputs=common.numbers(reader, "intermediate_layers_indices", OUTPUTS),
            norm_eps=reader.number("norm_eps"),
        )
        if vision.embed_dim % vision.num_heads:
            reader.fail(
                f"has hidden_size={vision.embed_dim}, which is not a multiple of {vision.num_heads} attention heads"
            )
        if vision.image_size % vision.patch_size:
            reader.fail(
                f"has image_size={vision.image_size}, which is not a multiple of patch_size={vision.patch_size}"
            )
        if not vision.outputs or max(vision.outputs) >= vision.num_layers:
            reader.fail(f"has intermediate_layers_indices={list(vision.outputs)} of {vision.num_layers} layers")
        if (width := reader.positive("vision_output_dim")) != vision.output_width:
            reader.fail(f"has vision_output_dim={width}, but its layers give {vision.output_width}")
        return vision


def _aspect_ratios(reader: ConfigReader) -> tuple[tuple[int, int], ...]:
    """Return every shape of at most `max_num_tiles` tiles, in the order of the image processor's ids."""
    tiles = reader.positive("max_num_tiles", MAX_TILES)
    sides = range(1, tiles + 1)
    ratios = [[height, width] for height in sides for width in sides if height * width <= tiles]
    reader.only("supported_aspect_ratios", ratios, None)
    return tuple((height, width) for height, width in ratios)
