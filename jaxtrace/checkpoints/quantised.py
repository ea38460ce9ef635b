"""Quantised safetensors that models are published in: their tensors, dequantised as they are read.

The two formats are those of transformers: FP8 with a scale for each block or matrix (`FineGrainedFP8Config`), and MXFP4
(`Mxfp4Config`). Other formats are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from jaxtrace.checkpoints.quantised_tensors import Fp8Tensor, Mxfp4Tensor
from jaxtrace.checkpoints.safetensors import TensorReader, Tensors
from jaxtrace.errors import CheckpointError, ConfigError, few
from jaxtrace.settings.validation import validated

KEYS = ("quantization_config", "compression_config", "quantization")  # of config.json, and of its text_config
QUANTISED_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")  # beside config.json
UNQUANTISED = "use the unquantised checkpoint, or a GGUF file of it"
SCALE_NAMES = ("_scale_inv", "_scales")

Size = Annotated[int, Field(strict=True, gt=0)]


class Quantisation(BaseModel):
    """Settings of a method of quantisation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def text(self) -> str:
        """Format of the weights in a few words."""
        raise NotImplementedError

    @property
    def note(self) -> str:
        """Sentence on the difference from an engine that computes with quantised numbers."""
        return f"weights are stored as {self.text} and are dequantised; activations are not quantised"

    def find(self, stored: TensorReader) -> Iterator[tuple[str, Fp8Tensor | Mxfp4Tensor]]:
        """Yield the quantised tensors of a checkpoint by name."""
        raise NotImplementedError


class Fp8(Quantisation):
    """Settings of `quant_method: fp8`; their defaults are transformers'.

    The stored dtypes say which weights are quantised, so lists of modules change nothing.

    Attributes:
      weight_block_size: rows and columns of a matrix that share a scale; None for one scale for the whole matrix.
      activation_scheme: how inference engines quantise activations, which jaxtrace does not.
    """

    quant_method: Literal["fp8"]
    weight_block_size: tuple[Size, Size] | None = (128, 128)
    activation_scheme: Literal["dynamic", "static"] = "dynamic"
    fmt: Literal["e4m3", "float8_e4m3fn"] = "e4m3"
    scale_fmt: Literal["float", "ue8m0"] = "float"
    expert_dtype: Literal["fp8"] = "fp8"
    dequantize: bool = False
    modules_to_not_convert: list[str] = []
    ignored_layers: list[str] = []
    modules_to_convert: list[str] = []

    @property
    def text(self) -> str:
        """Format of the weights in a few words."""
        if self.weight_block_size is None:
            return "FP8 with a scale for each matrix"
        return "FP8 in blocks of {} × {}".format(*self.weight_block_size)

    def find(self, stored: TensorReader) -> Iterator[tuple[str, Fp8Tensor]]:
        """Yield the quantised tensors of a checkpoint by name."""
        for name in stored:
            if stored.dtype(name).startswith("F8_") and not name.endswith("_scale_inv"):
                yield name, Fp8Tensor.of(stored, name, self.weight_block_size)


class Mxfp4(Quantisation):
    """Settings of `quant_method: mxfp4`."""

    quant_method: Literal["mxfp4"]
    dequantize: bool = False
    modules_to_not_convert: list[str] = []

    @property
    def text(self) -> str:
        """Format of the weights in a few words."""
        return "MXFP4"

    def find(self, stored: TensorReader) -> Iterator[tuple[str, Mxfp4Tensor]]:
        """Yield the quantised tensors of a checkpoint by name: NAME is stored as NAME_blocks and NAME_scales."""
        for values in stored:
            if values.endswith("_blocks"):
                name = values.removesuffix("_blocks")
                yield name, Mxfp4Tensor.of(stored, values, f"{name}_scales")


METHODS: dict[str, type[Quantisation]] = {"fp8": Fp8, "mxfp4": Mxfp4}


def quantisation_of(raw: Mapping[str, Any], directory: Path, name: str) -> Quantisation | None:
    """Return how a checkpoint's weights are quantised, from its config; None for plain weights.

    Args:
      raw: content of config.json.
      directory: directory of the checkpoint.
      name: name of the checkpoint, for error messages.

    Raises:
      CheckpointError: they are quantised in a way that jaxtrace does not read.
    """
    text = raw.get("text_config")
    parts = (raw, text if isinstance(text, dict) else {})
    given = {json.dumps(part[key], sort_keys=True): part[key] for part in parts for key in KEYS if part.get(key)}
    found = [_quantisation(settings, name) for settings in given.values()]
    for file in QUANTISED_FILES:
        if (directory / file).exists():
            raise CheckpointError(f"{name}: is quantised (it has a {file}); {UNQUANTISED}")
    if len(found) > 1:
        raise CheckpointError(f"{name}: is quantised in two ways ({found[0].text}; {found[1].text}); {UNQUANTISED}")
    return found[0] if found else None


def unquantised(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a config without its settings of quantisation."""
    config = {key: value for key, value in raw.items() if key not in KEYS}
    if isinstance(text := raw.get("text_config"), dict):
        config["text_config"] = {key: value for key, value in text.items() if key not in KEYS}
    return config


def _quantisation(given: Any, name: str) -> Quantisation:
    settings = given if isinstance(given, dict) else {}
    bitsandbytes = settings.get("load_in_4bit") or settings.get("load_in_8bit")
    method = settings.get("quant_method") or ("bitsandbytes" if bitsandbytes else "an unnamed method")
    if not isinstance(method, str) or method not in METHODS:
        raise CheckpointError(f"{name}: is quantised ({method!s:.60}); {UNQUANTISED}")
    kept = {key: value for key, value in settings.items() if value is not None or key == "weight_block_size"}
    try:
        return validated(METHODS[method], kept, f"{name}: quantization_config")
    except ConfigError as error:
        raise CheckpointError(f"{error}; {UNQUANTISED}") from None


@contextmanager
def open_tensors(directory: Path, quantisation: Quantisation | None, name: str) -> Iterator[TensorReader]:
    """Open the safetensors files of a checkpoint, to read parts of its tensors.

    Raises:
      CheckpointError: a file cannot be read, or quantised weights do not have the scales of their format.
    """
    with Tensors(directory) as tensors:
        yield tensors if quantisation is None else DequantisedTensors(tensors, quantisation, name)


class DequantisedTensors:
    """Tensors of a quantised checkpoint under the names and shapes of the unquantised one.

    MXFP4 weights are bfloat16, which holds each of them exactly. FP8 weights are float32, the dtype in which
    transformers multiplies by the scale: a float32 model has the products as they are, a bfloat16 one has them rounded
    once.

    Raises:
      CheckpointError: quantised weights do not have the scales of their format; the message lists them in one line.
    """

    def __init__(self, stored: TensorReader, quantisation: Quantisation, source: str) -> None:
        names, self._stored, self._quantised = {*stored}, stored, dict(quantisation.find(stored))
        hidden = {name for tensor in self._quantised.values() for name in tensor.stored_names}
        problems = [text for tensor in self._quantised.values() if (text := tensor.problem(stored, names))]
        lone = [name for name in sorted(names - hidden) if name.endswith(SCALE_NAMES)]
        problems += [f"{name} is a scale of no such weight" for name in lone]
        if problems:
            raise CheckpointError(
                f"{source}: weights are not stored as {quantisation.text} ({few(problems, '; ')}); "
                f"download them again, or {UNQUANTISED}"
            )
        self._names = [name for name in stored if name not in hidden]

    def __iter__(self) -> Iterator[str]:
        yield from (*self._names, *self._quantised)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        tensor = self._quantised.get(name)
        return self._stored.shape(name) if tensor is None else tensor.shape

    def dtype(self, name: str) -> str:
        """Return the dtype of a tensor's values under safetensors' name."""
        tensor = self._quantised.get(name)
        return self._stored.dtype(name) if tensor is None else tensor.dtype

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Return a part of a tensor; of a quantised one, only the part's numbers and scales are read."""
        tensor = self._quantised.get(name)
        if tensor is None:
            return self._stored.read(name, index)
        index += (slice(None),) * (len(tensor.shape) - len(index))
        ranges = tuple(each.indices(size)[:2] for each, size in zip(index, tensor.shape, strict=True))
        with np.errstate(over="ignore", invalid="ignore"):  # infinite and NaN scales
            return tensor.read(self._stored, ranges)
