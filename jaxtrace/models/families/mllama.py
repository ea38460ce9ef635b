"""Llama 3.2 Vision: Llama 3.1 with cross-attention layers to images between its layers."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind, pattern_of
from jaxtrace.models.families import common, mllama_vision, ropes
from jaxtrace.models.families.reader import ConfigReader, renamed
from jaxtrace.models.vision_config import VisionConfig

MODEL_TYPES = ("mllama",)
ARCHITECTURES = ("MllamaForConditionalGeneration", "MllamaForCausalLM")
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING

_GATES = {"cross_attn_attn_gate": ("attention_gate",), "cross_attn_mlp_gate": ("feed_forward_gate",)}

WEIGHTS = (
    *common.weight_table(common.NORMS | _GATES),
    *mllama_vision.WEIGHTS,
)

# Names on the hub, and names in memory since transformers 4.52. A layer has either self-attention or cross-attention,
# so both share one name.
RENAMED = (
    *common.TEXT_RENAMED,
    (r"^model\.(vision_model|multi_modal_projector)\.", r"\1."),
    (r"\b(layers\.\d+)\.cross_attn\.", r"\1.self_attn."),
)
IGNORED = ()
REFUSED = {
    "hidden_act": "no published model has another",
    "tie_word_embeddings": "the embedding has more rows than the unembedding",
}

EXTRA_TOKENS = 8  # rows of the embedding beyond the vocabulary, for tokens that are never predicted
ALIASES = {"image_token_id": "image_token_index"}
DEFAULTS = {"image_token_index": 128_256, "tie_word_embeddings": True}
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
    "cross_attention_layers": None,
    "tie_word_embeddings": False,
}
CROSS_ATTENTION_LAYERS = (3, 8, 13, 18, 23, 28, 33, 38)  # default where the config has null or nothing


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Llama 3.2 Vision config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(renamed(config, ALIASES), source, DEFAULTS, "mllama", ignored) as reader:
        reader.flag("tie_word_embeddings")  # text_config decides
        image_token = reader.positive("image_token_index")
        vision = mllama_vision.vision_config(reader.mapping("vision_config"), f"{source} (vision_config)", ignored)
        decoder = _text(reader.mapping("text_config"), f"{source} (text_config)", image_token, vision, ignored)
        if image_token >= (tokens := decoder.vocab_size + EXTRA_TOKENS):
            reader.fail(f"has image_token_index={image_token}, beyond its {tokens} embedded tokens")
        return decoder


def _text(
    config: dict[str, Any], source: str, image_token: int, vision: VisionConfig, ignored: dict[str, str] | None
) -> DecoderConfig:
    with ConfigReader(config, source, TEXT_DEFAULTS, "mllama", ignored, "text_config.") as reader:
        reader.ignore("dropout")
        reader.only("tie_word_embeddings", False)
        reader.only("hidden_act", "silu")
        cross, rope = common.numbers(reader, "cross_attention_layers", CROSS_ATTENTION_LAYERS), ropes.rope(reader)
        kinds = [
            LayerKind(rope=None, cross_attention=True) if layer in cross else LayerKind(rope=rope)
            for layer in range(reader.layers())
        ]
        return common.llama_like(
            reader, "mllama", pattern_of(kinds), extra_tokens=EXTRA_TOKENS, image_token=image_token, vision=vision
        )
