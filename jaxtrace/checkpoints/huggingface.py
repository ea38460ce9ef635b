"""Opening a checkpoint: a Hugging Face directory, a converted one, or a hub id."""

from __future__ import annotations

import functools
import hashlib
import json
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
from jaxtrace.checkpoints.weights import Weights
from jaxtrace.errors import CheckpointError, first_line
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.families import FAMILIES
from jaxtrace.parallel.sharding import param_shardings

if TYPE_CHECKING:
    from jaxtrace.checkpoints.saved import Saved

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
      conversion: what it was converted from; None for a Hugging Face checkpoint.
    """

    name: str
    directory: Path
    config: DecoderConfig
    tokenizer: Tokenizer | None
    stop_tokens: tuple[int, ...]
    conversion: Conversion | None = None

    def read(self, dtype: Any = None, *, mesh: Mesh | None = None, stacked: bool = False) -> Params:
        """Its parameters.

        Args:
          dtype: of all of them; by default float32 on a CPU and bfloat16 elsewhere.
          mesh: to split them over; None for the default device.
          stacked: layers stacked for a scan.

        Raises:
          CheckpointError: they cannot be read exactly.
        """
        dtype = default_dtype() if dtype is None else dtype
        shardings = None if mesh is None else param_shardings(self.config, mesh, stacked=stacked)
        with self.weights() as weights:
            return assemble(self.config, weights.read, dtype, shardings, stacked)

    @contextmanager
    def weights(self) -> Iterator[Weights | Saved]:
        """Its parameters on disk, to read parts of; raises CheckpointError."""
        if self.conversion is not None:
            from jaxtrace.checkpoints.saved import Saved  # Orbax takes a while

            yield Saved(self.config, self.directory / PARAMS, self.name)
            return
        with Tensors(self.directory) as tensors:
            yield Weights(self.config, tensors, self.name)

    @functools.cached_property
    def digests(self) -> tuple[str, ...]:
        """What its weights are known by: SHA-256 of every file, or what a conversion keeps of its source."""
        if self.conversion is not None:
            return self.conversion.weights
        return tuple(_sha256(path) for path in shards(self.directory))

    def fingerprint(self) -> str:
        """SHA-256 of its config and weights; a conversion that rounds nothing has that of its source."""
        digests = (_sha256(self.directory / "config.json"), *self.digests)
        return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


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
    conversion = read_conversion(directory, name)
    raw, config = read_config(directory, name)
    if conversion is None:
        shards(directory)
    tokenizer = Tokenizer.load(directory)
    said = (raw, raw.get("text_config") or {}, _read_json(directory / "generation_config.json") or {})
    stops = {token for settings in said for token in _ids(settings.get("eos_token_id"))}
    if tokenizer is not None:
        stops |= {*_ids(tokenizer.eos)}
    return Checkpoint(name, directory, config, tokenizer, tuple(sorted(stops)), conversion)


def read_config(directory: Path, name: str) -> tuple[dict[str, Any], DecoderConfig]:
    """config.json as it is, and the decoder it describes; raises CheckpointError and ConfigError."""
    raw = _read_json(directory / "config.json")
    if raw is None:
        raise CheckpointError(f"{name}: holds no config.json; give a Hugging Face checkpoint directory or a hub id")
    _refuse_quantised(raw, name)
    _refuse_quantised(raw.get("text_config"), name)
    kind = raw.get("model_type")
    if kind not in list(FAMILIES):  # it may be of any type
        raise CheckpointError(f"{name}: its architecture {kind!r} is not one jaxtrace knows ({', '.join(FAMILIES)})")
    return raw, FAMILIES[kind].decoder_config(raw, name)


def default_dtype() -> Any:
    """Of parameters, where nobody says: a CPU emulates bfloat16."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def _refuse_quantised(raw: Any, name: str) -> None:
    """Takes quantisation of null out of a config."""
    for key in ("quantization_config", "compression_config"):
        if isinstance(raw, dict) and (found := raw.pop(key, None)):
            settings = found if isinstance(found, dict) else {}
            bitsandbytes = settings.get("load_in_4bit") or settings.get("load_in_8bit")
            method = settings.get("quant_method") or ("bitsandbytes" if bitsandbytes else "an unnamed method")
            raise CheckpointError(f"{name}: is quantised ({method}); use the unquantised checkpoint")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def looks_like_hub_id(name: str) -> bool:
    """Whether a name that is no directory here may be a hub id."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _fetch(name: str) -> Path:
    if not looks_like_hub_id(name):
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


def _ids(value: Any) -> list[int]:
    if value is None:
        return []
    ids = value if isinstance(value, list) else [value]
    if any(type(token) is not int for token in ids):
        raise CheckpointError(f"eos_token_id={value!r} is no token id and no list of them; download the config again")
    return ids
