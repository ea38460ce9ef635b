"""Code shared by families derived from Llama: a weight table, and mappings of shapes and layer types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtrace.models.config import DecoderConfig, Experts, LayerKind, pattern_of
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
MAX_EXPERTS = 10_000

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
# Experts: one tensor for each expert as in checkpoints, for all experts as in the modules of transformers 5, or for all
# experts with gate and up apart as in GGUF files.
ROUTER = "mlp.gate.weight"
EXPERT = {f"mlp.experts.{{expert}}.{x}_proj.weight": x for x in ("gate", "up", "down")}
STACKED_EXPERTS = {
    "mlp.experts.gate_up_proj": ("gate", "up"),
    "mlp.experts.down_proj": ("down",),
    "mlp.experts.gate_proj": ("gate",),
    "mlp.experts.up_proj": ("up",),
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


def expert_table(router: str, expert: Mapping[str, str], stacked: Mapping[str, Sequence[str]]) -> tuple[Weight, ...]:
    """Return the lines of routers and experts.

    Args:
      router: name of the router's weight in a layer.
      expert: parameter by the name of the tensor of one expert; "{expert}" stands for its number.
      stacked: parameters by the name of the tensor of all experts, which concatenates them along their outputs.
    """
    layer, path = "model.layers.{}.", ("layers", "{}", "feed_forward")
    return (
        Weight(f"{layer}{router}", (*path, "router")),
        *(Weight(f"{layer}{name}", (*path, "experts", x)) for name, x in expert.items()),
        *(
            Weight(f"{layer}{name}", (*path, "experts", x), part=i)
            for name, parts in stacked.items()
            for i, x in enumerate(parts)
        ),
    )


EXPERTS = expert_table(ROUTER, EXPERT, STACKED_EXPERTS)

# Experts as in DeepSeek-V3: scores are sigmoids, and a bias takes part in the choice.
SELECTION_BIAS = ("layers", "{}", "feed_forward", "selection_bias")
BIASED_EXPERTS = (*EXPERTS, Weight("model.layers.{}.mlp.gate.e_score_correction_bias", SELECTION_BIAS))
BIASED_EXPERTS_DEFAULTS = {"routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1}
BIASED_EXPERTS_REFUSED = dict.fromkeys(("n_group", "topk_group"), "no router chooses among groups of experts")


def shared_table(name: str) -> tuple[Weight, ...]:
    """Return the lines of the shared expert, or of the shared experts stored as one, of a name in a layer."""
    layer, path = f"model.layers.{{}}.{name}", ("layers", "{}", "feed_forward")
    return (
        *(Weight(f"{layer}.{x}_proj.weight", (*path, "shared", x)) for x in ("gate", "up", "down")),
        Weight(f"{layer}_gate.weight", (*path, "shared_gate")),
    )


def experts(
    reader: ConfigReader, number: str, feed_forward: str, chosen: str = "num_experts_per_tok", **choices: Any
) -> Experts:
    """Read the experts of all layers that are not dense.

    Args:
      reader: reader of the config.
      number: attribute with the number of experts.
      feed_forward: attribute with the hidden width of an expert.
      chosen: attribute with the number of experts for each token.
      choices: fields of Experts that differ from Mixtral's.
    """
    reader.ignore("output_router_logits", "router_aux_loss_coef")  # only training reads them
    experts = Experts(
        reader.positive(number, MAX_EXPERTS), reader.positive(chosen), reader.positive(feed_forward), **choices
    )
    if experts.chosen > experts.number:
        reader.fail(f"has {chosen}={experts.chosen}, which is above {number}={experts.number}")
    return experts


def shared_experts(reader: ConfigReader, *, normalised: bool) -> Experts:
    """Read experts beside a gated shared expert, as in Qwen2-MoE."""
    shared = reader.positive("shared_expert_intermediate_size")
    return experts(
        reader, "num_experts", "moe_intermediate_size", normalised=normalised, shared=shared, shared_gate=True
    )


def biased_experts(reader: ConfigReader) -> Experts:
    """Read experts as in DeepSeek-V3."""
    for name in BIASED_EXPERTS_REFUSED:
        reader.only(name, 1, None)
    reader.only("scoring_func", "sigmoid", "noaux_tc", None)  # two names that configs have for it
    reader.only("topk_method", "noaux_tc", None)
    return experts(
        reader,
        "n_routed_experts",
        "moe_intermediate_size",
        scoring="sigmoid",
        selection_bias=True,
        normalised=reader.flag("norm_topk_prob"),
        scale=reader.number("routed_scaling_factor"),
        shared=reader.positive("n_shared_experts") * reader.positive("moe_intermediate_size"),
    )


def dense_first(reader: ConfigReader, layers: Sequence[LayerKind]) -> tuple[LayerKind, ...]:
    """Return the layer pattern: no experts in the first `first_k_dense_replace` layers."""
    dense = reader.whole("first_k_dense_replace")
    return pattern_of([replace(kind, dense=i < dense) for i, kind in enumerate(layers)])


def expert_layers(reader: ConfigReader, layers: Sequence[LayerKind]) -> tuple[LayerKind, ...]:
    """Return the layer pattern: experts in every `decoder_sparse_step`-th layer, but not in `mlp_only_layers`."""
    step, dense = reader.positive("decoder_sparse_step"), numbers(reader, "mlp_only_layers", ())
    return pattern_of([replace(kind, dense=i in dense or (i + 1) % step > 0) for i, kind in enumerate(layers)])


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
