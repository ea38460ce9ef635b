"""The two forms of a checkpoint's files: a directory in Hugging Face's layout, and a GGUF model."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtrace.checkpoints.converted import MARKER, PARAMS, STARTED, Conversion, read_conversion
from jaxtrace.checkpoints.gguf.config import config_of
from jaxtrace.checkpoints.gguf.files import GgufModel, is_gguf_file, only_model, open_gguf
from jaxtrace.checkpoints.gguf.tensors import GgufTensors
from jaxtrace.checkpoints.gguf.tokenizer import tokenizer_files
from jaxtrace.checkpoints.quantised import Quantisation, open_tensors, quantisation_of
from jaxtrace.checkpoints.safetensors import ADAPTER, INDEX, SINGLE, TensorReader, adapter_error, shards
from jaxtrace.checkpoints.tokenizer import Tokenizer
from jaxtrace.documents import MAX_JSON, read_bytes, read_json
from jaxtrace.errors import CheckpointError
from jaxtrace.models.config import DecoderConfig

CONFIG = "config.json"
GENERATION = "generation_config.json"
COPIED = ("*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")  # besides the weights, by a conversion


@dataclass(frozen=True)
class HuggingFaceFiles:
    """Files of a checkpoint directory in Hugging Face's layout, converted ones included.

    Attributes:
      directory: the directory.
      name: name of the checkpoint, for error messages.
    """

    directory: Path
    name: str

    def config(self) -> dict[str, Any]:
        """Return the content of config.json; raises CheckpointError."""
        if not (self.directory / CONFIG).exists():
            absent = "holds no config.json; give a Hugging Face checkpoint directory, a GGUF file or a hub id"
            if self.name.lower().endswith("-gguf"):  # a hub id
                absent = "holds GGUF files; download one (huggingface-cli download), and give its path"
            raise adapter_error(self.directory) or CheckpointError(f"{self.name}: {absent}")
        return self._json(CONFIG)

    def config_text(self) -> bytes:
        """Return the bytes of config.json; raises CheckpointError."""
        return read_bytes(self.directory / CONFIG, MAX_JSON, CheckpointError, "download it again")

    def conversion(self) -> Conversion | None:
        """Return the conversion that the directory holds, or None; raises CheckpointError."""
        return read_conversion(self.directory, self.name)

    def quantisation(self, raw: Mapping[str, Any]) -> Quantisation | None:
        """Return how the weights of a config are quantised, or None; raises CheckpointError."""
        return quantisation_of(raw, self.directory, self.name)

    def generation(self) -> dict[str, Any]:
        """Return the content of generation_config.json, or nothing; raises CheckpointError."""
        return self._json(GENERATION) if (self.directory / GENERATION).exists() else {}

    def tokenizer(self) -> Tokenizer | None:
        """Return the tokenizer, or None; raises CheckpointError."""
        return Tokenizer.load(self.directory)

    def tensors(
        self, config: DecoderConfig, quantisation: Quantisation | None = None
    ) -> AbstractContextManager[TensorReader]:
        """Open the weights; raises CheckpointError."""
        return open_tensors(self.directory, quantisation, self.name)

    def weight_files(self) -> list[Path]:
        """Return the files of weights; raises CheckpointError."""
        return shards(self.directory)

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the content of every file that a conversion copies."""
        for pattern in COPIED:
            for file in self.directory.glob(pattern):
                if file.name not in (INDEX, MARKER, STARTED):
                    yield file.name, file.read_bytes()

    def notes(self) -> tuple[str, ...]:
        """Return sentences on files of weights that are ignored."""
        notes = ()
        if (self.directory / SINGLE).exists() and (self.directory / INDEX).exists():
            notes += (f"{SINGLE} is read; {INDEX} and its shards are ignored",)
        if (self.directory / ADAPTER).exists():
            notes += (f"the adapter ({ADAPTER}) beside the model's weights is ignored",)
        return notes

    def _json(self, file: str) -> dict[str, Any]:
        return read_json(self.directory / file, CheckpointError, "download it again", finite=False)


@dataclass(frozen=True)
class GgufFiles:
    """A GGUF model, whose metadata give the files that a Hugging Face directory has; see `HuggingFaceFiles`.

    Attributes:
      model: its headers.
    """

    model: GgufModel

    @property
    def directory(self) -> Path:
        """Directory of the files."""
        return self.model.files[0].parent

    def config(self) -> dict[str, Any]:
        """Return the content that config.json would have; raises CheckpointError."""
        return config_of(self.model)

    def config_text(self) -> bytes:
        """Return the bytes that config.json would have."""
        return json.dumps(self.config(), indent=2).encode()

    def conversion(self) -> None:
        """Return None: a conversion in the same directory is another checkpoint."""

    def quantisation(self, raw: Mapping[str, Any]) -> None:
        """Return None: the file says how each tensor is stored."""

    def generation(self) -> dict[str, Any]:
        """Return the content that generation_config.json would have, or nothing; raises CheckpointError."""
        return json.loads(self._tokenizer_files.get(GENERATION, "{}"))

    def tokenizer(self) -> Tokenizer | None:
        """Return the tokenizer, or None; raises CheckpointError."""
        return Tokenizer.from_files(self._tokenizer_files, str(self.model.files[0]))

    def tensors(self, config: DecoderConfig, quantisation: Quantisation | None = None) -> GgufTensors:
        """Open the weights, which are dequantised as they are read; raises CheckpointError."""
        return GgufTensors(self.model, config)

    def weight_files(self) -> list[Path]:
        """Return the file, or all parts of a split model."""
        return [*self.model.files]

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the content of every file that a conversion writes; raises CheckpointError."""
        yield CONFIG, self.config_text()
        for name, text in self._tokenizer_files.items():
            yield name, text.encode()

    def notes(self) -> tuple[str, ...]:
        """Return nothing: all of a GGUF file is read or refused."""
        return ()

    @functools.cached_property
    def _tokenizer_files(self) -> dict[str, str]:
        return tokenizer_files(self.model.metadata, str(self.model.files[0]))


CheckpointFiles = HuggingFaceFiles | GgufFiles


def find_files(path: Path, name: str) -> CheckpointFiles:
    """Return the files of a checkpoint: a GGUF file, or a directory in Hugging Face's layout or with one GGUF model.

    Safetensors and conversions come before GGUF models in the same directory.

    Args:
      path: directory, or GGUF file.
      name: name of the checkpoint, for error messages.

    Raises:
      CheckpointError: the path is another file, the directory holds several GGUF models, or a header is malformed.
    """
    if is_gguf_file(path):
        return GgufFiles(open_gguf(path))
    if path.is_file():
        raise CheckpointError(f"{name}: is a file; give the checkpoint's directory, or a GGUF file")
    weights = (SINGLE, INDEX, ADAPTER, MARKER, STARTED, PARAMS)
    model = None if any((path / file).exists() for file in weights) else only_model(path)
    return HuggingFaceFiles(path, name) if model is None else GgufFiles(open_gguf(model))
