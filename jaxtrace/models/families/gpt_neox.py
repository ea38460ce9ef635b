"""GPT-NeoX and Pythia: parallel blocks, partial rotary positions, layer norms; a head's q, k and v lie side by side."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families import ropes
from jaxtrace.models.families.reader import ConfigReader
from jaxtrace.models.families.weights import Weight
from jaxtrace.models.rope_config import Rope

MODEL_TYPES = ("gpt_neox",)
ARCHITECTURES = ("GPTNeoXForCausalLM",)
EMBEDDING, UNEMBEDDING = "gpt_neox.embed_in.weight", "embed_out.weight"
RENAMED = ((r"^lm_head\.", "embed_out."),)  # the name in memory since transformers 5
IGNORED = (r"layers\.\d+\.attention\.(bias|masked_bias)",)  # causal masks

_LAYER = "gpt_neox.layers.{}"
_BLOCK = ("layers", "{}")
_MATRICES = {
    "attention.dense": ("attention", "o"),
    "mlp.dense_h_to_4h": ("feed_forward", "up"),
    "mlp.dense_4h_to_h": ("feed_forward", "down"),
}
_NORMS = {
    f"{_LAYER}.input_layernorm": (*_BLOCK, "attention_norm"),
    f"{_LAYER}.post_attention_layernorm": (*_BLOCK, "feed_forward_norm"),
    "gpt_neox.final_layer_norm": ("final_norm",),
}

WEIGHTS = (
    Weight(EMBEDDING, ("embedding",)),
    *(
        Weight(f"{_LAYER}.attention.query_key_value.{kind}", (*_BLOCK, "attention", x + end), part=i, by_head=True)
        for i, x in enumerate("qkv")
        for kind, end in (("weight", ""), ("bias", "_bias"))
    ),
    *(
        Weight(f"{_LAYER}.{name}.{kind}", (*_BLOCK, group, x + end))
        for name, (group, x) in _MATRICES.items()
        for kind, end in (("weight", ""), ("bias", "_bias"))
    ),
    *(Weight(f"{name}.{kind}", (*path, kind)) for name, path in _NORMS.items() for kind in ("weight", "bias")),
    Weight(UNEMBEDDING, ("unembedding",)),
)

DEFAULTS = {
    "vocab_size": 50_432,
    "hidden_size": 6144,
    "intermediate_size": 24_576,
    "num_hidden_layers": 44,
    "num_attention_heads": 64,
    "hidden_act": "gelu",
    "max_position_embeddings": 2048,
    "layer_norm_eps": 1e-5,
    "rotary_emb_base": 10_000.0,
    "rotary_pct": 0.25,
    "partial_rotary_factor": None,
    "attention_bias": True,
    "use_parallel_residual": True,
    "tie_word_embeddings": False,
}


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a GPT-NeoX config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(config, source, DEFAULTS, "gpt_neox", ignored) as reader:
        reader.ignore("attention_probs_dropout_prob", "hidden_dropout_prob")  # of training
        embed, heads = reader.positive("hidden_size"), reader.positive("num_attention_heads")
        head_dim = ropes.head_dim_of(reader)
        reader.only("head_dim", embed // heads, None)
        bias, pattern = reader.flag("attention_bias"), (LayerKind(rope=_rope(reader)),)
        return DecoderConfig(
            family="gpt_neox",
            vocab_size=reader.positive("vocab_size"),
            embed_dim=embed,
            num_layers=reader.layers(),
            num_heads=heads,
            kv_heads=heads,
            head_dim=head_dim,
            feed_forward=reader.positive("intermediate_size"),
            context=ropes.context_of(reader, pattern),
            pattern=pattern,
            norm="layer",
            norm_eps=reader.number("layer_norm_eps"),
            parallel=reader.flag("use_parallel_residual"),
            activation=reader.activation("hidden_act"),
            gated=False,
            qkv_bias=bias,
            output_bias=bias,
            feed_forward_bias=True,
            tied=reader.flag("tie_word_embeddings"),
        )


def _rope(reader: ConfigReader) -> Rope:
    """Read rotary positions; transformers reads the base and the fraction under this family's own names only."""
    reader.number("rotary_pct")  # null is an error there
    rope = ropes.rope(reader, "rotary_emb_base", "rotary_pct")
    reader.only("rope_theta", rope.theta, None)
    reader.only("partial_rotary_factor", rope.fraction, None)
    return rope
