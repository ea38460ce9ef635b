"""Code shared by families derived from Llama: a weight table, and mappings of shapes and layer types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind, pattern_of
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.families.ropes import context_of, head_dim_of
from jaxtrace.models.families.weights import Weight
from jaxtrace.models.rope_config import Rope

EMBEDDING = "model.embed_tokens.weight"
UNEMBEDDING = "lm_head.weight"
# Names of the text part of multi-modal checkpoints, on the hub and in memory.
TEXT_RENAMED = (
    (r"^(language_model\.model|model\.language_model)\.", "model."),
    (r"^language_model\.lm_head\.", "lm_head."),
)

# Weights of a block and Llama's norms. A line is ignored if the config has no such parameter.
ATTENTION = {
    **{f"self_attn.{x}_proj.weight": ("attention", x) for x in "qkvo"},
    **{f"self_attn.{x}_proj.bias": ("attention", f"{x}_bias") for x in "qkvo"},
    **{f"self_attn.{x}_norm.weight": ("attention", f"{x}_norm", "weight") for x in "qk"},
}
FEED_FORWARD = {
    **{f"mlp.{x}_proj.weight": ("feed_forward", x) for x in ("gate", "up", "down")},
    **{f"mlp.{x}_proj.bias": ("feed_forward", f"{x}_bias") for x in ("gate", "up", "down")},
}
NORMS = {
    "input_layernorm.weight": ("attention_norm", "weight"),
    "post_attention_layernorm.weight": ("feed_forward_norm", "weight"),
}
NORMS_AFTER = {
    "post_attention_layernorm.weight": ("post_attention_norm", "weight"),
    "post_feedforward_layernorm.weight": ("post_feed_forward_norm", "weight"),
}
NORMS_AROUND = NORMS_AFTER | {
    "input_layernorm.weight": ("attention_norm", "weight"),
    "pre_feedforward_layernorm.weight": ("feed_forward_norm", "weight"),
}


def weight_table(norms: dict[str, tuple[str, ...]]) -> tuple[Weight, ...]:
    """Return the weight table of a Llama-like checkpoint."""
    block = ATTENTION | FEED_FORWARD | norms
    return (
        Weight(EMBEDDING, ("embedding",)),
        *(Weight(f"model.layers.{{}}.{name}", ("layers", "{}", *path)) for name, path in block.items()),
        Weight("model.norm.weight", ("final_norm", "weight")),
        Weight(UNEMBEDDING, ("unembedding",)),
    )


def llama_like(reader: ConfigReader, family: str, pattern: tuple[LayerKind, ...], **choices: Any) -> DecoderConfig:
    """Build a decoder config from Llama's attribute names.

    Args:
      reader: reader of the config.
      family: model type.
      pattern: kinds of layers.
      choices: fields of DecoderConfig that differ from Llama's.
    """
    embed, heads = reader.positive("hidden_size"), reader.positive("num_attention_heads")
    kv_heads = reader.positive_or_none("num_key_value_heads") or heads
    if all(kind.dense for kind in pattern):
        choices["experts"] = None
    if heads % kv_heads:
        reader.fail(f"has {heads} attention heads, which is not a multiple of {kv_heads} key/value heads")
    return DecoderConfig(
        family=family,
        vocab_size=reader.positive("vocab_size"),
        embed_dim=embed,
        num_layers=reader.layers(),
        num_heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim_of(reader),
        feed_forward=choices.pop("feed_forward", None) or reader.positive("intermediate_size"),
        context=context_of(reader, pattern),
        pattern=pattern,
        norm_eps=reader.number("rms_norm_eps"),
        tied=reader.flag("tie_word_embeddings"),
        **choices,
    )


def layer_pattern(reader: ConfigReader, default: list[str], kinds: dict[str, LayerKind]) -> tuple[LayerKind, ...]:
    """Read the layer pattern from `layer_types`; `kinds` has the kind of each type, and `default` all layers' types."""
    return pattern_of([kinds[name] for name in layer_types(reader, default, list(kinds))])


def layer_types(reader: ConfigReader, default: list[str], known: Sequence[str]) -> list[str]:
    """Read the types of all layers, each one of `known`; `default` if the config does not list them."""
    types = reader.get("layer_types")
    types = default if types is None else types
    if not isinstance(types, list) or len(types) != len(default) or any(name not in known for name in types):
        reader.fail(f"has layer_types={types!r}; jaxtrace supports a list of {len(default)} of {', '.join(known)}")
    return types


def alternating_types(layers: int, period: int) -> list[str]:
    """Return the types of layers of which every `period`-th has full attention, and the others a window."""
    return ["sliding_attention" if (i + 1) % period else "full_attention" for i in range(layers)]


def alternating_pattern(reader: ConfigReader, period: int, ropes: Mapping[str, Rope]) -> tuple[LayerKind, ...]:
    """Read the layer pattern; by default every `period`-th layer has full attention. `ropes` are by type of layers."""
    kinds = {
        "sliding_attention": LayerKind(reader.positive("sliding_window"), ropes["sliding_attention"]),
        "full_attention": LayerKind(rope=ropes["full_attention"]),
    }
    return layer_pattern(reader, alternating_types(reader.layers(), period), kinds)


def text_config(reader: ConfigReader) -> dict[str, Any]:
    """Read `text_config`; whether embeddings are tied stands at the top, and there too if the two agree."""
    tied = reader.flag("tie_word_embeddings")
    text = {"tie_word_embeddings": tied} | reader.mapping("text_config")
    if text["tie_word_embeddings"] != tied:
        reader.fail(f"has tie_word_embeddings={tied}, but text_config has {not tied}")
    return text


def numbers(reader: ConfigReader, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """Read a list of layer numbers; return the default for null."""
    value = reader.get(name)
    if value is None:
        return default
    if not isinstance(value, list) or not all(type(x) is int and x >= 0 for x in value):
        reader.fail(f"has {name}={value!r}, which must be a list of layer numbers")
    return tuple(value)
