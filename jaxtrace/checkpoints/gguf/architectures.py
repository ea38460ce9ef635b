"""Architectures of llama.cpp, as data: model types, and metadata under the names of Hugging Face's config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtrace.checkpoints.gguf.keys import Keys

WINDOW, PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"
SHARED = "attention.shared_kv_layers"

# Attributes of config.json by metadata key; all are required.
SIZES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "feed_forward_length": "intermediate_size",
}
RMS = SIZES | {"attention.layer_norm_rms_epsilon": "rms_norm_eps"}
EXPERTS = RMS | {"expert_count": "num_experts", "expert_used_count": "num_experts_per_tok"}

Config = dict[str, Any]


def _nothing(config: Config, keys: Keys) -> None:
    """Add nothing."""


def _gemma(config: Config, keys: Keys) -> None:
    """Add the soft-caps, the windows and the scale of attention scores.

    llama.cpp knows the scale by the number of layers: 1/√(width / heads) for the largest model, 1/√(width of a head)
    for the others.
    """
    caps = ("attn_logit_softcapping", "final_logit_softcapping")
    config |= {name: keys.number(name) for name in caps if keys.get(name)}
    largest = config["num_hidden_layers"] == {"gemma2": 46, "gemma3": 62}[keys.model.architecture]
    width = config["hidden_size"] // config["num_attention_heads"]
    config["query_pre_attn_scalar"] = width if largest else config["head_dim"]
    if keys.model.architecture == "gemma3":
        config["rope_local_base_freq"] = keys.number("rope.freq_base_swa", 10_000.0)
        _windows(config, keys, 6)
    elif keys.get(WINDOW):  # by default those of transformers
        _windows(config, keys, 2)


def _windows(config: Config, keys: Keys, period: int) -> None:
    """Add the window and the types of layers: every `period`-th attends to all keys; without a window, all do."""
    layers, pattern = config["num_hidden_layers"], keys.get(PATTERN)
    windowed = [False] * layers
    if keys.get(WINDOW):
        config["sliding_window"] = keys.whole(WINDOW)
        period = pattern if type(pattern) is int and pattern > 0 else period
        windowed = pattern if isinstance(pattern, list) else [(i + 1) % period != 0 for i in range(layers)]
    config["layer_types"] = ["sliding_attention" if window else "full_attention" for window in windowed]


def _gemma4(config: Config, keys: Keys) -> None:
    """Add what differs between layers, the shared keys and values, and the embeddings of each layer."""
    layers, sliding = config["num_hidden_layers"], keys.get(PATTERN)
    if not isinstance(sliding, list) or len(sliding) != layers or [*map(type, {*sliding})] != [bool] * 2:
        keys.fail(f"has {PATTERN}={sliding!r:.60}, which must say of each layer whether it has a window")
    _windows(config, keys, layers)
    shared = keys.whole(SHARED) if keys.get(SHARED) else 0
    kv_heads = keys.per_layer("attention.head_count_kv", layers)
    widths = keys.per_layer("feed_forward_length", layers)
    by_type = dict(zip(sliding, kv_heads, strict=True))
    wide = [width * (1 + (i >= layers - shared)) for i, width in enumerate([widths[0]] * layers)]
    if kv_heads != [by_type[window] for window in sliding] or widths not in (wide, [widths[0]] * layers):
        keys.fail("has layers of one kind with different numbers of key/value heads or widths")
    full, width = f"blk.{sliding.index(False)}", keys.whole("attention.key_length")
    narrow = keys.whole("attention.key_length_swa", width)
    if {keys.whole(f"{name}_swa", narrow) for name in ("attention.value_length", "rope.dimension_count")} != {narrow}:
        keys.fail("has keys, values and rotations of different widths in layers with a window")
    factors = config.pop("rope_scaling", {}).get("short_factor", [1.0])
    turned = factors.count(1.0)
    if not turned or [factor < 1e29 for factor in factors] != [i < turned for i in range(len(factors))]:
        keys.fail("has rope factors other than 1 and infinity")
    embedding = keys.model.tensors.get("per_layer_token_embd.weight")
    config |= {
        "intermediate_size": widths[0],
        "use_double_wide_mlp": widths != [widths[0]] * layers,
        "head_dim": narrow,
        "global_head_dim": width,
        "num_key_value_heads": by_type[True],
        "num_global_key_value_heads": by_type[False],
        "attention_k_eq_v": f"{full}.attn_v.weight" not in keys.model.tensors,
        "num_kv_shared_layers": shared,
        "hidden_size_per_layer_input": keys.get("embedding_length_per_layer_input") or 0,
        "vocab_size_per_layer_input": config["vocab_size"] if embedding is None else embedding.shape[0],
        "rope_parameters": {
            "sliding_attention": {"rope_theta": keys.number("rope.freq_base_swa", 10_000.0)},
            "full_attention": {
                "rope_type": "proportional",
                "partial_rotary_factor": turned / len(factors),
                "rope_theta": config.pop("rope_theta"),
            },
        },
    }
    if keys.get("final_logit_softcapping"):
        config["final_logit_softcapping"] = keys.number("final_logit_softcapping")


def _olmo3(config: Config, keys: Keys) -> None:
    """Add the windows; layers that have them scale no wavelength."""
    if "sliding_window" not in config:
        return
    _windows(config, keys, 4)
    theta = {"rope_theta": config["rope_theta"]}
    full = {"rope_type": "default"} | config.pop("rope_scaling", {}) | theta
    config["rope_parameters"] = {"sliding_attention": {"rope_type": "default"} | theta, "full_attention": full}


def _ministral(config: Config, keys: Keys) -> None:
    """Add the factors of YaRN and of the scaling of queries by position, which stand among rotary positions."""
    scaling = config.setdefault("rope_scaling", {"rope_type": "default"})
    if keys.get("rope.scaling.yarn_log_multiplier"):
        scaling |= {"mscale": 1.0, "mscale_all_dim": keys.number("rope.scaling.yarn_log_multiplier")}
    scale = "attention.temperature_scale"
    strength = keys.number(scale) if keys.get(scale) else 0
    original = scaling.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
    scaling["llama_4_scaling_beta"] = strength
    if strength and keys.whole("attention.temperature_length", original) != original:
        keys.fail("scales queries from another position than the original context")


def _gpt_oss(config: Config, keys: Keys) -> None:
    """Add the windows, in every other layer, and the ramp of YaRN, which transformers does not round."""
    _windows(config, keys, 2)
    if config.get("rope_scaling", {}).get("rope_type") == "yarn":
        config["rope_scaling"]["truncate"] = False
    else:
        config["rope_parameters"] = {"rope_type": "default"}


def _phi3(config: Config, keys: Keys) -> None:
    """Add the original context, which stands beside the scaling."""
    original = config.get("rope_scaling", {}).pop("original_max_position_embeddings", None)
    config["original_max_position_embeddings"] = original or config["max_position_embeddings"]


def _gpt_neox(config: Config, keys: Keys) -> None:
    """Add the parallel residual, and give rotary positions their names."""
    if not isinstance(parallel := keys.get("use_parallel_residual"), bool):
        keys.fail("does not say whether its blocks are parallel (gptneox.use_parallel_residual)")
    config["use_parallel_residual"] = parallel
    config["rotary_emb_base"] = config.pop("rope_theta")
    config["rotary_pct"] = config.pop("partial_rotary_factor", 1.0)


@dataclass(frozen=True)
class Architecture:
    """How an architecture of llama.cpp maps to a model type of transformers.

    Attributes:
      model_type: model type of config.json.
      windowed: model type of a file with a sliding window; None if no such file is supported.
      attributes: attributes of config.json by metadata key, without the architecture's name.
      rope: True for rotary positions.
      by_layer: True if heads and widths may differ between layers; `more` reads them.
      more: function that adds the attributes that need more than a name.
    """

    model_type: str
    windowed: str | None = None
    attributes: Mapping[str, str] = field(default_factory=lambda: RMS)
    rope: bool = True
    by_layer: bool = False
    more: Callable[[Config, Keys], None] = _nothing


def _layer_norm(epsilon: str, **renamed: str) -> dict[str, str]:
    return SIZES | {"attention.layer_norm_epsilon": epsilon} | renamed


DENSE = {
    "exaone": Architecture("llama"),
    "gemma2": Architecture("gemma2", windowed="gemma2", more=_gemma),
    "gemma3": Architecture("gemma3_text", windowed="gemma3_text", more=_gemma),
    "gemma4": Architecture("gemma4_text", windowed="gemma4_text", by_layer=True, more=_gemma4),
    "gpt2": Architecture(
        "gpt2", attributes=_layer_norm("layer_norm_epsilon", feed_forward_length="n_inner"), rope=False
    ),
    "gptneox": Architecture("gpt_neox", attributes=_layer_norm("layer_norm_eps"), more=_gpt_neox),
    "llama": Architecture("llama", windowed="mistral"),
    "mistral3": Architecture("ministral3", windowed="ministral3", more=_ministral),
    "olmo2": Architecture("olmo2", windowed="olmo3", more=_olmo3),
    "phi3": Architecture("phi3", windowed="phi3", more=_phi3),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "smollm3": Architecture("smollm3"),
}
_WIDTH = {"expert_feed_forward_length": "moe_intermediate_size"}
# Architectures of files with experts.
MIXTURES = {
    "gemma4": Architecture(
        "gemma4_text",
        windowed="gemma4_text",
        attributes=EXPERTS | _WIDTH | {"expert_used_count": "top_k_experts"},
        by_layer=True,
        more=_gemma4,
    ),
    "gpt-oss": Architecture(
        "gpt_oss",
        windowed="gpt_oss",
        attributes=EXPERTS | {"expert_count": "num_local_experts", "expert_feed_forward_length": "intermediate_size"},
        more=_gpt_oss,
    ),
    "llama": Architecture("mixtral", windowed="mixtral", attributes=EXPERTS | {"expert_count": "num_local_experts"}),
    "olmoe": Architecture("olmoe", attributes=EXPERTS),
    "qwen2moe": Architecture(
        "qwen2_moe",
        attributes=EXPERTS | _WIDTH | {"expert_shared_feed_forward_length": "shared_expert_intermediate_size"},
    ),
    "qwen3moe": Architecture("qwen3_moe", attributes=EXPERTS | _WIDTH),
}
UNNORMALISED = ("olmoe", "qwen2moe")  # llama.cpp does not divide the scores of their chosen experts by the sum
