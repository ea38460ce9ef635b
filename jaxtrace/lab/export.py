"""Writes trained parameters as a Hugging Face checkpoint of their family."""

import json
from pathlib import Path

import jax.numpy as jnp
from safetensors.flax import save

from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.files import write_atomically
from jaxtrace.lab.shapes import Shape
from jaxtrace.lab.tokenizer import BOS_ID, EOS_ID, PAD_ID
from jaxtrace.models.decoder import Params

WEIGHTS = "model.safetensors"


def save_checkpoint(directory: Path, shape: Shape, params: Params) -> None:
    """Write config.json, generation_config.json and model.safetensors, with the family's weight names.

    Args:
      params: parameters of the model, layers as a list; stored as bfloat16.
    """
    tensors = {name: jnp.asarray(x, jnp.bfloat16) for name, x in export_weights(shape.decoder, params).items()}
    write_atomically(directory / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    generation = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    for name, content in (("config.json", shape.config), ("generation_config.json", generation)):
        write_atomically(directory / name, json.dumps(content, indent=2) + "\n")
