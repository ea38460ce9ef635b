"""Checkpoints of random weights: a model's shape and a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxtrace.checkpoints.gguf.files import is_gguf_file
from jaxtrace.checkpoints.huggingface import config_notes, default_dtype, log_notes, read_config, read_shape
from jaxtrace.checkpoints.sources import find_files
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.errors import CheckpointError, ConfigError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, init_params
from jaxtrace.models.published import find_published
from jaxtrace.parallel.memory import loading_weights
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
      revision, revision_name: always None, because no weights are read.
      notes: sentences on the config.
      ignored_config: attributes of config.json that were not read, with the reason of each; see `read_config`.
    """

    name: str
    config: DecoderConfig
    seed: int
    directory: Path | None = None
    tokenizer: Tokenizer | None = None
    stop_tokens: tuple[int, ...] = ()
    revision: str | None = None
    revision_name: str | None = None
    notes: tuple[str, ...] = ()
    ignored_config: Mapping[str, str] = field(default_factory=dict)

    def log_notes(self) -> None:
        """Log the notes; see `Checkpoint.log_notes`."""
        log_notes(self.name, self.notes, self.ignored_config)

    def read(self, dtype: Any = None, *, mesh: Mesh | None = None, stacked: bool = False) -> Params:
        """Draw the parameters, the same on any mesh, stacked or not; see `Checkpoint.read` for the arguments."""
        shardings = None if mesh is None else param_shardings(self.config, mesh, stacked=stacked)
        dtype = default_dtype() if dtype is None else dtype
        with loading_weights(self.name, self.config, dtype):
            return init_params(
                self.config, jax.random.key(self.seed), dtype=dtype, stacked=stacked, shardings=shardings
            )

    def fingerprint(self) -> str:
        """Return the SHA-256 of config, seed and default dtype, which determine the parameters."""
        return hashlib.sha256(f"{self.config} {self.seed} {jnp.dtype(default_dtype())}".encode()).hexdigest()


def open_random(name: str, seed: int, ignore_config: Sequence[str] = ()) -> RandomCheckpoint:
    """Return a checkpoint of random weights.

    Args:
      name: checkpoint directory (weights are not needed) or a file in it, a GGUF file, or the short name or hub id of
        a published model.
      seed: seed of the weights.
      ignore_config: attributes of config.json to leave unread; see `read_config`.

    Raises:
      CheckpointError: the name is none of these.
      ConfigError: the config has an attribute or a value that jaxtrace does not support.
    """
    path, shown = Path(name), f"{name} (random, seed {seed})"
    if path.exists():
        files = find_files(path if path.is_dir() or is_gguf_file(path) else path.parent, name)
        raw, _, ignored = read_config(files, name, ignore_config)
        config, notes = read_shape(files, name, ignore_config), config_notes(raw, ignored)
        return RandomCheckpoint(
            shown, config, seed, files.directory, files.tokenizer(), notes=notes, ignored_config=ignored
        )
    published = find_published(name)
    if published is None:
        raise CheckpointError(
            f"{name}: neither a published model nor a directory with a config.json; `jaxtrace models` lists the former"
        )
    if ignore_config:
        raise ConfigError(f"{name}: has no config.json here; drop {', '.join(ignore_config)} from ignore_config")
    return RandomCheckpoint(shown, published.config, seed)
