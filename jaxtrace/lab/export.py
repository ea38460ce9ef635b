"""Writes trained parameters as a Hugging Face Llama checkpoint."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from safetensors.flax import save

from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.lab.tokenizer import BOS_ID, EOS_ID, PAD_ID
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.layers import INIT_STD


def save_checkpoint(directory: Path, config: DecoderConfig, params: Params) -> None:
    """Writes config.json, generation_config.json and model.safetensors.

    Args:
      directory: an existing folder.
      config: of a tied "llama" decoder without biases and rope scaling.
      params: its parameters, layers as a list; stored as bfloat16.
    """
    tensors = {name: jnp.asarray(x, jnp.bfloat16) for name, x in export_weights(config, params).items()}
    (directory / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    generation = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    for name, content in (("config.json", hf_config(config)), ("generation_config.json", generation)):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def hf_config(config: DecoderConfig) -> dict[str, Any]:
    """The decoder's shape under the names of Hugging Face's LlamaConfig."""
    rope = config.kind(0).rope
    assert rope is not None
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab,
        "hidden_size": config.embed,
        "intermediate_size": config.feed_forward,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "initializer_range": INIT_STD,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": rope.theta,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tied,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": PAD_ID,
        "use_cache": True,
        "torch_dtype": "bfloat16",
    }
