"""Code shared by families with experts: the weights of routers and experts, and the readers of their config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxtrace.models.config import Experts, LayerKind, pattern_of
from jaxtrace.models.families.common import numbers
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.families.weights import Weight

MAX_EXPERTS = 50_000  # in all layers; Qwen3.5-397B has 30,720

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
    experts = Experts(reader.positive(number), reader.positive(chosen), reader.positive(feed_forward), **choices)
    if experts.number * reader.layers() > MAX_EXPERTS:
        reader.fail(
            f"has {number}={experts.number} for each of {reader.layers()} layers, more than {MAX_EXPERTS:,} in all"
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
