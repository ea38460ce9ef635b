"""Opening a Hugging Face checkpoint: a directory on disk, or a hub id."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from huggingface_hub import snapshot_download

from jaxtrace.checkpoints.safetensors import Tensors, shards
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.checkpoints.weights import read_params
from jaxtrace.errors import CheckpointError, first_line
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.families import FAMILIES

HUB_FILES = ("*.json", "*.safetensors", "tokenizer.model", "merges.txt", "vocab.txt", "*.jinja")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose config is understood and whose weights are still on disk.

    Attributes:
      name: as the user gave it.
      directory: where its files are.
      config: the decoder it describes.
      tokenizer: its tokenizer, or None.
      stop_tokens: every id that its config, generation config or tokenizer calls an end of sequence.
    """

    name: str
    directory: Path
    config: DecoderConfig
    tokenizer: Tokenizer | None
    stop_tokens: tuple[int, ...]

    def read(self, dtype: Any = None) -> Params:
        """Its parameters; by default float32 on a CPU and bfloat16 elsewhere. Raises CheckpointError."""
        if dtype is None:
            dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
        with Tensors(self.directory) as tensors:
            return read_params(self.config, tensors, self.name, dtype)

    def fingerprint(self) -> str:
        """SHA-256 of its config and weight files."""
        digest = hashlib.sha256()
        for path in [self.directory / "config.json", *shards(self.directory)]:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def open_checkpoint(name: str) -> Checkpoint:
    """Finds a checkpoint and reads everything but its weights.

    Args:
      name: a directory, or a hub id such as "meta-llama/Llama-3.2-1B" (fetched once, then cached by huggingface_hub).

    Raises:
      CheckpointError: nothing is there, or it is not a checkpoint we can read.
      ConfigError: the config says something we do not understand.
    """
    directory = Path(name) if Path(name).exists() else _fetch(name)
    if not directory.is_dir():
        raise CheckpointError(f"{name}: is a file; give the checkpoint's directory")
    raw = _read_json(directory / "config.json")
    if raw is None:
        raise CheckpointError(f"{name}: holds no config.json; give a Hugging Face checkpoint directory or a hub id")
    if quantisation := raw.pop("quantization_config", None):
        method = dict(quantisation).get("quant_method", "an unnamed method")
        raise CheckpointError(f"{name}: is quantised ({method}); use the unquantised checkpoint")
    kind = raw.get("model_type")
    if kind not in FAMILIES:
        raise CheckpointError(f"{name}: its architecture {kind!r} is not one jaxtrace knows ({', '.join(FAMILIES)})")
    shards(directory)
    tokenizer = Tokenizer.load(directory)
    config = FAMILIES[kind].decoder_config(raw, name)
    generation = _read_json(directory / "generation_config.json") or {}
    stops = {*_ids(raw.get("eos_token_id")), *_ids(generation.get("eos_token_id"))}
    if tokenizer is not None:
        stops |= {*_ids(tokenizer.eos)}
    return Checkpoint(name, directory, config, tokenizer, tuple(sorted(stops)))


def _fetch(name: str) -> Path:
    looks_like_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if not looks_like_id:
        raise CheckpointError(f"{name}: no such directory; give a checkpoint directory, a hub id, or 'demo'")
    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the hub's client raises its own, its transport's and the operating system's errors
        raise CheckpointError(
            f"{name}: is no directory here, and the hub cannot give it ({first_line(error)}); "
            "check the name and the network, or give a local checkpoint directory"
        ) from None


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object; download it again")
    return value


def _ids(value: int | list[int] | None) -> list[int]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
