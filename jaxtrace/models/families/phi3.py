"""Phi-3, Phi-3.5 and Phi-4: Llama with q, k and v in one tensor, and gate and up in one tensor."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import common, ropes
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.families.weights import Weight
from jaxtrace.models.rope_config import LongRopeScaling, Rope

MODEL_TYPES = ("phi3",)
ARCHITECTURES = ("Phi3ForCausalLM",)
EMBEDDING, UNEMBEDDING = common.EMBEDDING, common.UNEMBEDDING
RENAMED = ()
IGNORED = ()

_FUSED = (
    *(
        Weight("model.layers.{}.self_attn.qkv_proj.weight", ("layers", "{}", "attention", x), part=i)
        for i, x in enumerate("qkv")
    ),
    *(
        Weight("model.layers.{}.mlp.gate_up_proj.weight", ("layers", "{}", "feed_forward", x), part=i)
        for i, x in enumerate(("gate", "up"))
    ),
)
_SINGLE = {line.path: line for line in common.weight_table(common.NORMS)}
WEIGHTS = tuple((_SINGLE | {line.path: line for line in _FUSED}).values())

DEFAULTS = {
    "vocab_size": 32_064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 1.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
}
# Attributes of Microsoft's code that transformers does not read, with the values that change nothing there.
UNREAD = {
    "attention_bias": False,
    "mlp_bias": False,
    "lm_head_bias": False,
    "full_attn_mod": 1,
    "interpolate_factor": 1,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a Phi-3 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "phi3", ignored) as reader:
        reader.ignore("embd_pdrop", "resid_pdrop")  # of training
        reader.ignore(*(name for name, value in UNREAD.items() if config.get(name) == value))
        window, context = reader.positive_or_none("sliding_window"), reader.positive("max_position_embeddings")
        kind = LayerKind(window if window and window < context else None, _rope(reader))
        return common.llama_like(reader, "phi3", (kind,), activation=reader.activation("hidden_act"))


def _rope(reader: ConfigReader) -> Rope:
    """Read rotary positions: plain ones or LongRoPE, which early checkpoints call "su" and transformers also "yarn"."""
    settings = ropes.rope_settings(reader)
    kind = settings.pop("type", "default")
    kind = settings.pop("rope_type", kind)
    rope = ropes.rope_of(reader, settings | {"rope_type": "longrope" if kind in ("su", "yarn") else kind})
    if not isinstance(rope.scaling, LongRopeScaling | None):
        reader.fail(f"has rope scaling {kind!r}; transformers' Phi-3 has 'default' and 'longrope' only")
    return rope
