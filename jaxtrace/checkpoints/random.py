"""A config and a seed in place of a checkpoint: a model's shape with random weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxtrace.checkpoints.huggingface import default_dtype, read_config
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import CheckpointError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, init_params
from jaxtrace.models.published import find_published
from jaxtrace.parallel.sharding import param_shardings


@dataclass(frozen=True)
class RandomCheckpoint:
    """What `Checkpoint` is, with weights that are drawn instead of read.

    Attributes:
      name: says that they are random.
      config: of the decoder.
      seed: of the weights.
      directory: where the config is, with what else a checkpoint has; None for a published model.
      tokenizer: that of the directory, or None.
      stop_tokens: none; such a model means nothing by any token.
    """

    name: str
    config: DecoderConfig
    seed: int
    directory: Path | None = None
    tokenizer: Tokenizer | None = None
    stop_tokens: tuple[int, ...] = ()

    def read(self, dtype: Any = None, *, mesh: Mesh | None = None, stacked: bool = False) -> Params:
        """Draws the parameters; the same on any mesh, stacked or not. Arguments are those of `Checkpoint.read`."""
        shardings = None if mesh is None else param_shardings(self.config, mesh, stacked=stacked)
        dtype = default_dtype() if dtype is None else dtype
        return init_params(self.config, jax.random.key(self.seed), dtype=dtype, stacked=stacked, shardings=shardings)

    def fingerprint(self) -> str:
        """SHA-256 of all that its parameters in the default dtype come from."""
        return hashlib.sha256(f"{self.config} {self.seed} {jnp.dtype(default_dtype())}".encode()).hexdigest()


def open_random(name: str, seed: int) -> RandomCheckpoint:
    """A model's shape with random weights.

    Args:
      name: a checkpoint directory, of which the weights may be missing, or a file in it; or the short name or hub id of
        a published model.
      seed: of the weights.

    Raises:
      CheckpointError: it is none of these.
      ConfigError: the config says something we do not understand.
    """
    path, shown = Path(name), f"{name} (random, seed {seed})"
    if path.exists():
        directory = path if path.is_dir() else path.parent
        _, config = read_config(directory, name)
        return RandomCheckpoint(shown, config, seed, directory, Tokenizer.load(directory))
    published = find_published(name)
    if published is None:
        raise CheckpointError(
            f"{name}: neither a published model nor a directory with a config.json; `jaxtrace models` lists the former"
        )
    return RandomCheckpoint(shown, published.config, seed)
