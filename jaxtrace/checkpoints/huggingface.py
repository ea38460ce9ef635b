"""Opens checkpoints: Hugging Face directories, converted ones and hub ids."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from huggingface_hub import snapshot_download
from jax.sharding import Mesh

from jaxtrace.checkpoints.assemble import assemble
from jaxtrace.checkpoints.converted import PARAMS, Conversion, read_conversion
from jaxtrace.checkpoints.safetensors import Tensors, shards
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.checkpoints.weights import SafetensorsWeights
from jaxtrace.errors import CheckpointError, first_line
from jaxtrace.files import read_json
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.published import check_model_name
from jaxtrace.parallel.sharding import param_shardings

if TYPE_CHECKING:
    from jaxtrace.checkpoints.orbax import OrbaxWeights

HUB_FILES = ("*.json", "*.safetensors", "tokenizer.model", "merges.txt", "vocab.txt", "*.jinja")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose config is parsed and whose weights are still on disk.

    Attributes:
      name: name that the user gave.
      directory: directory of its files.
      config: config of the decoder.
      tokenizer: tokenizer, or None.
      stop_tokens: end-of-sequence ids from its config, generation config and tokenizer.
      conversion: source and settings of a converted checkpoint; None for a Hugging Face checkpoint.
    """

    name: str
    directory: Path
    config: DecoderConfig
    tokenizer: Tokenizer | None
    stop_tokens: tuple[int, ...]
    conversion: Conversion | None = None

    def read(self, dtype: Any = None, *, mesh: Mesh | None = None, stacked: bool = False) -> Params:
        """Read the parameters.

        Args:
          dtype: dtype of all parameters; by default float32 on a CPU and bfloat16 elsewhere.
          mesh: mesh to split the parameters over; None for the default device.
          stacked: True to stack the layers for a scan.

        Raises:
          CheckpointError: the parameters cannot be read exactly.
        """
        dtype = default_dtype() if dtype is None else dtype
        shardings = None if mesh is None else param_shardings(self.config, mesh, stacked=stacked)
        with self.weights() as weights:
            return assemble(self.config, weights.read, dtype, shardings, stacked)

    @contextmanager
    def weights(self) -> Iterator[SafetensorsWeights | OrbaxWeights]:
        """Open the parameters on disk, to read parts of them; raises CheckpointError."""
        if self.conversion is not None:
            from jaxtrace.checkpoints.orbax import OrbaxWeights  # importing Orbax takes a second

            yield OrbaxWeights(self.config, self.directory / PARAMS, self.name)
            return
        with Tensors(self.directory) as tensors:
            yield SafetensorsWeights(self.config, tensors, self.name)

    @functools.cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of every weight file; a conversion stores the digests of its source."""
        if self.conversion is not None:
            return self.conversion.weights
        return tuple(_sha256(path) for path in shards(self.directory))

    def fingerprint(self) -> str:
        """Return the SHA-256 of config and weights; a conversion without rounding has its source's fingerprint."""
        digests = (_sha256(self.directory / "config.json"), *self.digests)
        return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def open_checkpoint(name: str) -> Checkpoint:
    """Find a checkpoint and read everything but its weights.

    Args:
      name: directory, or hub id such as "meta-llama/Llama-3.2-1B" (downloaded once, then cached by huggingface_hub).

    Raises:
      CheckpointError: the checkpoint is missing or unreadable.
      ConfigError: the config has an attribute or a value that jaxtrace does not support.
    """
    directory = Path(name) if Path(name).exists() else _fetch(name)
    if not directory.is_dir():
        raise CheckpointError(f"{name}: is a file; give the checkpoint's directory")
    conversion = read_conversion(directory, name)
    raw, config = read_config(directory, name)
    if conversion is None:
        shards(directory)
    tokenizer = Tokenizer.load(directory)
    generation = _read_json(directory / "generation_config.json") or {}
    eos = [settings.get("eos_token_id") for settings in (raw, raw.get("text_config") or {}, generation)]
    if tokenizer is not None:
        eos.append(tokenizer.eos)
    stop_tokens = {token for value in eos for token in _token_ids(value)}
    return Checkpoint(name, directory, config, tokenizer, tuple(sorted(stop_tokens)), conversion)


def read_config(directory: Path, name: str) -> tuple[dict[str, Any], DecoderConfig]:
    """Return the content of config.json and the decoder's config; raises CheckpointError and ConfigError."""
    raw = _read_json(directory / "config.json")
    if raw is None:
        raise CheckpointError(f"{name}: holds no config.json; give a Hugging Face checkpoint directory or a hub id")
    _refuse_quantised(raw, name)
    _refuse_quantised(raw.get("text_config"), name)
    kind = raw.get("model_type")
    if kind not in list(FAMILIES):  # the value may be unhashable
        raise CheckpointError(f"{name}: its architecture {kind!r} is not one jaxtrace knows ({', '.join(FAMILIES)})")
    return raw, FAMILIES[kind].decoder_config(raw, name)


def default_dtype() -> Any:
    """Return the default parameter dtype: float32 on a CPU, which emulates bfloat16, and bfloat16 elsewhere."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def _refuse_quantised(raw: Any, name: str) -> None:
    """Raise CheckpointError for a quantised config, and remove null quantisation settings from it."""
    for key in ("quantization_config", "compression_config"):
        if isinstance(raw, dict) and (quantisation := raw.pop(key, None)):
            settings = quantisation if isinstance(quantisation, dict) else {}
            bitsandbytes = settings.get("load_in_4bit") or settings.get("load_in_8bit")
            method = settings.get("quant_method") or ("bitsandbytes" if bitsandbytes else "an unnamed method")
            raise CheckpointError(f"{name}: is quantised ({method}); use the unquantised checkpoint")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(name: str) -> Path:
    check_model_name(name)
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
    return read_json(path, CheckpointError, "download it again")


def _token_ids(value: Any) -> list[int]:
    if value is None:
        return []
    ids = value if isinstance(value, list) else [value]
    if any(type(token) is not int for token in ids):
        raise CheckpointError(
            f"eos_token_id={value!r} is no token id and no list of token ids; download the config again"
        )
    return ids
