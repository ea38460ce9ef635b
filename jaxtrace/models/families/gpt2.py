"""GPT-2: learned positions, layer norms with biases, matrices stored [in, out]."""

from __future__ import annotations

from typing import Any

from jaxtrace.models.config import DecoderConfig, LayerKind
from jaxtrace.models.families.reader import ConfigReader, renamed
from jaxtrace.models.families.weights import Weight

MODEL_TYPES = ("gpt2",)
ARCHITECTURES = ("GPT2LMHeadModel", "GPT2DoubleHeadsModel")
EMBEDDING, UNEMBEDDING = "transformer.wte.weight", "lm_head.weight"
RENAMED = ((r"^(wte|wpe|h|ln_f)\.", r"transformer.\1."),)
REFUSED = {
    "scale_attn_weights": "scores are divided by √H",
    "scale_attn_by_inverse_layer_idx": "no layer has a factor of its own",
}
IGNORED = (r"h\.\d+\.(attn|crossattention)\.(bias|masked_bias)",)  # causal masks

_BLOCK = ("layers", "{}")
_MATRICES = {
    "attn.c_proj": ("attention", "o"),
    "mlp.c_fc": ("feed_forward", "up"),
    "mlp.c_proj": ("feed_forward", "down"),
}
_NORMS = {"ln_1": "attention_norm", "ln_2": "feed_forward_norm"}

WEIGHTS = (
    Weight(EMBEDDING, ("embedding",)),
    Weight("transformer.wpe.weight", ("positions",)),
    *(
        line
        for i, x in enumerate("qkv")
        for line in (
            Weight("transformer.h.{}.attn.c_attn.weight", (*_BLOCK, "attention", x), transposed=True, part=i),
            Weight("transformer.h.{}.attn.c_attn.bias", (*_BLOCK, "attention", f"{x}_bias"), part=i),
        )
    ),
    *(
        line
        for name, (group, x) in _MATRICES.items()
        for line in (
            Weight(f"transformer.h.{{}}.{name}.weight", (*_BLOCK, group, x), transposed=True),
            Weight(f"transformer.h.{{}}.{name}.bias", (*_BLOCK, group, f"{x}_bias")),
        )
    ),
    *(
        Weight(f"transformer.h.{{}}.{name}.{part}", (*_BLOCK, norm, part))
        for name, norm in _NORMS.items()
        for part in ("weight", "bias")
    ),
    *(Weight(f"transformer.ln_f.{part}", ("final_norm", part)) for part in ("weight", "bias")),
    Weight(UNEMBEDDING, ("unembedding",)),
)

# Names of other families, which transformers reads here too.
ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
DEFAULTS = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
}

# Attributes of training, of a classifier's head, copies of n_positions, and the order of one product's computation.
HARMLESS = (
    *("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    *("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout"),
    *("n_ctx", "n_special", "predict_special_tokens", "output_past", "reorder_and_upcast_attn"),
)


def decoder_config(config: dict[str, Any], source: str, ignored: dict[str, str] | None = None) -> DecoderConfig:
    """Map a GPT-2 config.json to a DecoderConfig; raise ConfigError for any unsupported attribute."""
    with ConfigReader(renamed(config, ALIASES), source, DEFAULTS, "gpt2", ignored) as reader:
        reader.ignore(*HARMLESS)
        reader.only("scale_attn_weights", True)
        reader.only("scale_attn_by_inverse_layer_idx", False, None)
        embed, heads = reader.positive("n_embd"), reader.positive("n_head")
        if embed % heads:
            reader.fail(f"has n_embd={embed}, which is not a multiple of {heads} attention heads")
        reader.only("head_dim", embed // heads, None)
        return DecoderConfig(
            family="gpt2",
            vocab_size=reader.positive("vocab_size"),
            embed_dim=embed,
            num_layers=reader.layers("n_layer"),
            num_heads=heads,
            kv_heads=heads,
            head_dim=embed // heads,
            feed_forward=reader.positive_or_none("n_inner") or 4 * embed,
            context=reader.positive("n_positions"),
            pattern=(LayerKind(rope=None),),
            norm="layer",
            norm_eps=reader.number("layer_norm_epsilon"),
            activation=reader.activation("activation_function"),
            gated=False,
            learned_positions=True,
            qkv_bias=True,
            output_bias=True,
            feed_forward_bias=True,
            tied=reader.flag("tie_word_embeddings"),
        )
