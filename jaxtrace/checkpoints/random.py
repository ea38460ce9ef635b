"""Checkpoints of random weights: a model's shape and a seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxtrace.checkpoints.huggingface import default_dtype, read_shape
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import CheckpointError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, init_params
from jaxtrace.models.published import find_published
from jaxtrace.parallel.sharding import param_shardings


@dataclass(frozen=True)
class RandomCheckpoint:
    """A checkpoint with random weights; it has the interface of `Checkpoint`.

    Attributes:
      name: name of the model, with a note that its weights are random.
      config: config of the decoder.
      seed: seed of the weights.
      directory: directory of the config and tokenizer; None for a published model.
      tokenizer: tokenizer in the directory, or None.
      stop_tokens: always empty, because a random model has not learnt to end a text.
      revision, notes: always empty, because no weights are read.
    """

    name: str
    config: DecoderConfig
    seed: int
    directory: Path | None = None
    tokenizer: Tokenizer | None = None
    stop_tokens: tuple[int, ...] = ()
    revision: str | None = None
    notes: tuple[str, ...] = ()

    def log_notes(self) -> None:
        """Do nothing: there are no notes."""

    def read(self, dtype: Any = None, *, mesh: Mesh | None = None, stacked: bool = False) -> Params:
        """Draw the parameters, the same on any mesh, stacked or not; see `Checkpoint.read` for the arguments."""
        shardings = None if mesh is None else param_shardings(self.config, mesh, stacked=stacked)
        dtype = default_dtype() if dtype is None else dtype
        return init_params(self.config, jax.random.key(self.seed), dtype=dtype, stacked=stacked, shardings=shardings)

    def fingerprint(self) -> str:
        """Return the SHA-256 of config, seed and default dtype, which determine the parameters."""
        return hashlib.sha256(f"{self.config} {self.seed} {jnp.dtype(default_dtype())}".encode()).hexdigest()


def open_random(name: str, seed: int) -> RandomCheckpoint:
    """Return a checkpoint of random weights.

    Args:
      name: checkpoint directory (weights are not needed) or a file in it, or the short name or hub id of a published
        model.
      seed: seed of the weights.

    Raises:
      CheckpointError: the name is none of these.
      ConfigError: the config has an attribute or a value that jaxtrace does not support.
    """
    path, shown = Path(name), f"{name} (random, seed {seed})"
    if path.exists():
        directory = path if path.is_dir() else path.parent
        return RandomCheckpoint(shown, read_shape(directory, name), seed, directory, Tokenizer.load(directory))
    published = find_published(name)
    if published is None:
        raise CheckpointError(
            f"{name}: neither a published model nor a directory with a config.json; `jaxtrace models` lists the former"
        )
    return RandomCheckpoint(shown, published.config, seed)
