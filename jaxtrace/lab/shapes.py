"""The small models that are trained here: a Hugging Face config of every family from a depth and a width."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jaxtrace.lab.tokenizer import BOS_ID, EOS_ID, PAD_ID, VOCAB_SIZE
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.layers import INIT_STD

HEAD_DIM = 16
CONTEXT = 256


class Shape(BaseModel):
    """A model to train: heads of 16, two to each key/value head, feed-forward blocks three times the width.

    GPT-2 has as many key/value heads as heads, and blocks of four times the width, which have no gate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: Literal["llama", "gemma", "qwen", "gpt2"] = Field(description="Llama 3, Gemma 2, Qwen 3 or GPT-2")
    layers: int = Field(default=4, ge=1, le=64)
    width: int = Field(default=64, ge=32, le=1024, multiple_of=2 * HEAD_DIM)
    vocab: int = Field(default=VOCAB_SIZE, ge=512, le=65_536)

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json."""
        return _CONFIGS[self.family](self) | {
            "bos_token_id": BOS_ID,
            "eos_token_id": EOS_ID,
            "pad_token_id": PAD_ID,
            "use_cache": True,
            "torch_dtype": "bfloat16",
        }

    @property
    def decoder(self) -> DecoderConfig:
        """The decoder that its config.json describes."""
        config = self.config
        return FAMILIES[config["model_type"]].decoder_config(config, self.family)


def _llama(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **_sizes(shape),
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "initializer_range": INIT_STD,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
    }


def _qwen3(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **_sizes(shape),
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "initializer_range": INIT_STD,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "use_sliding_window": False,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
    }


def _gemma2(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        **_sizes(shape),
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": CONTEXT,
        "initializer_range": INIT_STD,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "query_pre_attn_scalar": HEAD_DIM,
        "sliding_window": 16,
        "attn_logit_softcapping": 20.0,
        "final_logit_softcapping": 15.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
    }


def _gpt2(shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": shape.vocab,
        "n_embd": shape.width,
        "n_layer": shape.layers,
        "n_head": shape.width // HEAD_DIM,
        "n_positions": CONTEXT,
        "activation_function": "gelu_new",
        "initializer_range": INIT_STD,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        **{f"{part}_pdrop": 0.0 for part in ("attn", "embd", "resid")},
    }


def _sizes(shape: Shape) -> dict[str, Any]:
    heads = shape.width // HEAD_DIM
    return {
        "vocab_size": shape.vocab,
        "hidden_size": shape.width,
        "intermediate_size": 3 * shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "head_dim": HEAD_DIM,
    }


_CONFIGS = {"llama": _llama, "gemma": _gemma2, "qwen": _qwen3, "gpt2": _gpt2}
