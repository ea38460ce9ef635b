"""Writes trained parameters as a Hugging Face checkpoint of their family."""

import json
from pathlib import Path

import jax.numpy as jnp
from safetensors.flax import save

from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.lab.shapes import Shape
from jaxtrace.lab.tokenizer import BOS_ID, EOS_ID, PAD_ID
from jaxtrace.models.decoder import Params

WEIGHTS = "model.safetensors"


def save_checkpoint(directory: Path, shape: Shape, params: Params) -> None:
    """Writes config.json, generation_config.json and model.safetensors, weights named as the family's table has them.

    Args:
      directory: an existing folder.
      shape: of the model.
      params: its parameters, layers as a list; stored as bfloat16.
    """
    tensors = {name: jnp.asarray(x, jnp.bfloat16) for name, x in export_weights(shape.decoder, params).items()}
    (directory / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
    generation = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    for name, content in (("config.json", shape.config), ("generation_config.json", generation)):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
