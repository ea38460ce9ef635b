"""Shapes of small models: a Hugging Face config of each family from a depth and a width. Imports no JAX."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from jaxtrace.lab.tokenizer import BOS_ID, EOS_ID, PAD_ID, VOCAB_SIZE
from jaxtrace.models.config import INIT_STD, DecoderConfig
from jaxtrace.models.families import FAMILIES
from jaxtrace.settings.numbers import Count
from jaxtrace.settings.validation import StrictModel

HEAD_DIM = 16
CONTEXT = 256


class Shape(StrictModel):
    """Shape of a small model: heads of 16, two query heads per key/value head, feed-forward blocks of 3 × width.

    GPT-2 has a key/value head for each query head, and blocks of 4 × width without a gate.
    """

    family: Literal["llama", "gemma", "qwen", "gpt2"] = Field(description="Llama 3, Gemma 2, Qwen 3 or GPT-2.")
    layers: Count = Field(default=4, le=64, description="Number of blocks.")
    width: Annotated[Count, Field(ge=32, le=1024, multiple_of=2 * HEAD_DIM)] = Field(
        default=64, description="Width of the residual stream."
    )
    vocab: Annotated[Count, Field(ge=512, le=65_536)] = Field(default=VOCAB_SIZE, description="Size of the vocabulary.")

    @property
    def config(self) -> dict[str, Any]:
        """Content of the model's config.json."""
        return {
            "vocab_size": self.vocab,
            "initializer_range": INIT_STD,
            "tie_word_embeddings": True,
            "bos_token_id": BOS_ID,
            "eos_token_id": EOS_ID,
            "pad_token_id": PAD_ID,
            "use_cache": True,
            "torch_dtype": "bfloat16",
        } | (self._gpt2() if self.family == "gpt2" else self._llama() | _VARIANTS[self.family])

    @property
    def decoder(self) -> DecoderConfig:
        """Decoder that the config describes."""
        config = self.config
        return FAMILIES[config["model_type"]].decoder_config(config, self.family)

    def _gpt2(self) -> dict[str, Any]:
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_embd": self.width,
            "n_layer": self.layers,
            "n_head": self.width // HEAD_DIM,
            "n_positions": CONTEXT,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            **{f"{part}_pdrop": 0.0 for part in ("attn", "embd", "resid")},
        }

    def _llama(self) -> dict[str, Any]:
        """Return what the configs of Llama, Gemma 2 and Qwen 3 share."""
        heads = self.width // HEAD_DIM
        return {
            "hidden_size": self.width,
            "intermediate_size": 3 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 2,
            "head_dim": HEAD_DIM,
            "max_position_embeddings": CONTEXT,
            "rope_theta": 10_000.0,
            "attention_bias": False,
            "attention_dropout": 0.0,
        }


_VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "mlp_bias": False,
    },
    "gemma": {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": HEAD_DIM,
        "sliding_window": 16,
        "attn_logit_softcapping": 20.0,
        "final_logit_softcapping": 15.0,
    },
    "qwen": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "use_sliding_window": False,
    },
}

DEMO = Shape(family="llama", layers=6, width=128)
