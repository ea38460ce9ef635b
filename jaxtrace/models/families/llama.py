"""Llama 2, 3, 3.1, 3.2 (text)."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, RopeScaling
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.families.weights import Weight

MODEL_TYPE = "llama"

EMBEDDING = "model.embed_tokens.weight"
UNEMBEDDING = "lm_head.weight"

WEIGHTS = (
    Weight(EMBEDDING, ("embedding",)),
    Weight("model.norm.weight", ("final_norm", "weight")),
    Weight(UNEMBEDDING, ("unembedding",)),
    *(
        Weight(f"model.layers.{{}}.{name}", ("layers", "{}", *path))
        for name, path in {
            "input_layernorm.weight": ("attention_norm", "weight"),
            "self_attn.q_proj.weight": ("attention", "q"),
            "self_attn.k_proj.weight": ("attention", "k"),
            "self_attn.v_proj.weight": ("attention", "v"),
            "self_attn.o_proj.weight": ("attention", "o"),
            "self_attn.q_proj.bias": ("attention", "q_bias"),
            "self_attn.k_proj.bias": ("attention", "k_bias"),
            "self_attn.v_proj.bias": ("attention", "v_bias"),
            "self_attn.o_proj.bias": ("attention", "o_bias"),
            "post_attention_layernorm.weight": ("feed_forward_norm", "weight"),
            "mlp.gate_proj.weight": ("feed_forward", "gate"),
            "mlp.up_proj.weight": ("feed_forward", "up"),
            "mlp.down_proj.weight": ("feed_forward", "down"),
            "mlp.gate_proj.bias": ("feed_forward", "gate_bias"),
            "mlp.up_proj.bias": ("feed_forward", "up_bias"),
            "mlp.down_proj.bias": ("feed_forward", "down_bias"),
        }.items()
    ),
)

# Buffers that old checkpoints carry and that hold no information.
IGNORED = ("model.layers.{}.self_attn.rotary_emb.inv_freq",)


def decoder_config(config: dict[str, Any], source: str) -> DecoderConfig:
    """A Llama config.json as a DecoderConfig; raises ConfigError for anything it does not understand."""
    with ConfigReader(config, source) as reader:
        reader.only("hidden_act", "silu")
        embed, heads = reader.positive("hidden_size"), reader.positive("num_attention_heads")
        kv_heads = reader.positive("num_key_value_heads", heads)
        if heads % kv_heads:
            reader.fail(f"has {heads} attention heads, which {kv_heads} key/value heads do not divide")
        if "head_dim" not in config and embed % heads:
            reader.fail(f"has hidden_size={embed}, which {heads} attention heads do not divide")
        head_dim = reader.positive("head_dim", embed // heads)
        if head_dim % 2:
            reader.fail(f"has head_dim={head_dim}, which rotary positions cannot turn in pairs")
        theta, scaling = _rope(reader)
        return DecoderConfig(
            family=MODEL_TYPE,
            vocab=reader.positive("vocab_size"),
            embed=embed,
            layers=reader.positive("num_hidden_layers"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            feed_forward=reader.positive("intermediate_size"),
            context=reader.positive("max_position_embeddings", 2048),
            norm_eps=reader.number("rms_norm_eps", 1e-6),
            rope_theta=theta,
            rope_scaling=scaling,
            attention_bias=reader.flag("attention_bias", False),
            feed_forward_bias=reader.flag("mlp_bias", False),
            tied=reader.flag("tie_word_embeddings", False),
        )


def _rope(reader: ConfigReader) -> tuple[float, RopeScaling | None]:
    """Base and scaling, from the current form (`rope_parameters`) or the old one (`rope_theta`, `rope_scaling`)."""
    new, old = reader.mapping("rope_parameters"), reader.mapping("rope_scaling")
    theta = float(new.get("rope_theta") or reader.number("rope_theta", 10_000.0))
    reader.read.add("rope_theta")
    settings = {k: v for k, v in {**old, **new}.items() if k != "rope_theta"}
    kind = settings.pop("rope_type", settings.pop("type", "default"))
    if kind == "default" and not settings:
        return theta, None
    fields = {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
    if kind != "llama3" or set(settings) != fields:
        reader.fail(
            f"has rope scaling {kind!r} with {sorted(settings)}; jaxtrace handles 'llama3' with {sorted(fields)}"
        )
    return theta, RopeScaling(
        factor=float(settings["factor"]),
        low_freq_factor=float(settings["low_freq_factor"]),
        high_freq_factor=float(settings["high_freq_factor"]),
        original_context=int(settings["original_max_position_embeddings"]),
    )
