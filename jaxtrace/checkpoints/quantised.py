"""Quantised safetensors that models are published in: their tensors, dequantised as they are read.

The two formats are those of transformers: FP8 with a scale for each block or matrix (`FineGrainedFP8Config`), and MXFP4
(`Mxfp4Config`). Other formats are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import ml_dtypes
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from jaxtrace.checkpoints.safetensors import TensorReader, Tensors
from jaxtrace.errors import CheckpointError, ConfigError, few
from jaxtrace.settings.validation import validated

KEYS = ("quantization_config", "compression_config", "quantization")  # of config.json, and of its text_config
QUANTISED_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")  # beside config.json
UNQUANTISED = "use the unquantised checkpoint, or a GGUF file of it"

SCALES = ("F32", "F16", "BF16", "F8_E8M0", "U8")  # U8 holds the bytes of F8_E8M0
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
# Values of each byte. Looking them up is several times faster than ml_dtypes' casts.
FP8_VALUES = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
FP4_VALUES = np.stack([np.tile(FP4, 16), np.repeat(FP4, 16)], axis=-1).view(np.complex64)[:, 0]  # low bits, high bits
GROUP = 32  # MXFP4 values that share a scale
SCALE_NAMES = ("_scale_inv", "_scales")

Size = Annotated[int, Field(strict=True, gt=0)]
Ranges = tuple[tuple[int, int], ...]  # (start, end) of every axis


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


@dataclass(frozen=True)
class Fp8Tensor:
    """A tensor of 8-bit floats that is multiplied by a scale for each block.

    Attributes:
      shape: shape of the tensor.
      values, scale: names of the stored floats and scales.
      grid: shape of the scales: the number of blocks on each axis.
      blocks: size of a block on each axis; the last block of an axis may be smaller.
      lone: True if there is one scale, which may be stored with any number of axes.
    """

    shape: tuple[int, ...]
    values: str
    scale: str
    grid: tuple[int, ...]
    blocks: tuple[int, ...]
    lone: bool
    dtype = "F32"

    @classmethod
    def of(cls, stored: TensorReader, name: str, block: tuple[int, int] | None) -> Fp8Tensor:
        """Return a stored tensor with a scale for each block of its last two axes; for None, with one scale."""
        shape = stored.shape(name)
        blocks = tuple(max(1, size) for size in shape) if block is None else (*[1] * (len(shape) - 2), *block)
        grid = tuple(-(-size // each) for size, each in zip(shape, blocks, strict=False))
        return cls(shape, name, f"{name}_scale_inv", grid, blocks, lone=block is None)

    @property
    def stored_names(self) -> tuple[str, ...]:
        """Names of the stored tensors, unused activation scales included: of x.weight, or of experts.gate_up_proj."""
        module = self.values.removesuffix("weight")
        return self.values, self.scale, f"{module}activation_scale", f"{module}_activation_scale"

    def problem(self, stored: TensorReader, names: Container[str]) -> str | None:
        """Return how the stored tensors do not fit the format; None if they fit."""
        if stored.dtype(self.values) != "F8_E4M3" or len(self.shape) < 2:
            return f"{self.values} is {_stored_as(stored, self.values)}, not F8_E4M3 of two or more axes"
        if self.scale in names and self.lone and {*stored.shape(self.scale)} <= {1}:
            return _scale_problem(stored, self.scale, names, stored.shape(self.scale))
        return _scale_problem(stored, self.scale, names, self.grid)

    def read(self, stored: TensorReader, ranges: Ranges) -> np.ndarray:
        """Return a part of the tensor."""
        part = FP8_VALUES[stored.read(self.values, _slices(ranges)).view(np.uint8)]
        grid = tuple((start // size, -(-end // size)) for (start, end), size in zip(ranges, self.blocks, strict=True))
        scale_ranges = tuple((0, 1) for _ in stored.shape(self.scale)) if self.lone else grid
        scales = _read_scales(stored, self.scale, scale_ranges).reshape([end - start for start, end in grid])
        (row, _), (column, end) = ranges[-2:]
        first = grid[-1][0] * self.blocks[-1]
        scales = scales.repeat(self.blocks[-1], axis=-1)[..., column - first : end - first]
        for block in range(scales.shape[-2]):  # repeating the scales over rows too would take the memory of the part
            start = (grid[-2][0] + block) * self.blocks[-2] - row
            part[..., max(0, start) : start + self.blocks[-2], :] *= scales[..., block : block + 1, :]
        return part


@dataclass(frozen=True)
class Mxfp4Tensor:
    """A tensor of 4-bit floats, each group of which is multiplied by a power of two.

    The groups run along the inputs. transformers holds the matrices of experts as [expert, input, output], so these are
    transposed; another matrix is [output, input].

    Attributes:
      shape: shape of the tensor.
      values, scale: names of the stored groups and scales.
      grid: shape of the scales, and of the groups without the axis of their bytes.
    """

    shape: tuple[int, ...]
    values: str
    scale: str
    grid: tuple[int, ...]
    dtype = "BF16"

    @classmethod
    def of(cls, stored: TensorReader, values: str, scale: str) -> Mxfp4Tensor:
        """Return the tensor of stored groups."""
        grid = stored.shape(values)[:-1]
        *experts, outputs, groups = (1, 1, *grid)[-max(2, len(grid)) :]
        shape = (*experts, groups * GROUP, outputs) if experts else (outputs, groups * GROUP)
        return cls(shape, values, scale, grid)

    @property
    def stored_names(self) -> tuple[str, ...]:
        """Names of the stored tensors."""
        return self.values, self.scale

    def problem(self, stored: TensorReader, names: Container[str]) -> str | None:
        """Return how the stored tensors do not fit the format; None if they fit."""
        if stored.dtype(self.values) != "U8" or len(self.grid) not in (2, 3) or stored.shape(self.values)[-1] != 16:
            return f"{self.values} is {_stored_as(stored, self.values)}, not U8 of shape [(experts,) rows, groups, 16]"
        return _scale_problem(stored, self.scale, names, self.grid)

    def read(self, stored: TensorReader, ranges: Ranges) -> np.ndarray:
        """Return a part of the tensor."""
        experts = len(self.shape) == 3
        (start, end), outputs = ranges[-2:] if experts else ranges[::-1]
        grid = (*ranges[:-2], outputs, (start // GROUP, -(-end // GROUP)))
        part = FP4_VALUES[stored.read(self.values, _slices((*grid, (0, GROUP // 2))))].view(np.float32)
        part *= _read_scales(stored, self.scale, grid)[..., None]
        first = grid[-1][0] * GROUP
        part = part.reshape(*part.shape[:-2], -1)[..., start - first : end - first].astype(ml_dtypes.bfloat16)
        return part.swapaxes(-1, -2) if experts else part


def _scale_problem(stored: TensorReader, name: str, names: Container[str], shape: tuple[int, ...]) -> str | None:
    if name not in names:
        return f"{name} is missing"
    if stored.shape(name) != shape or stored.dtype(name) not in SCALES:
        return f"{name} is {_stored_as(stored, name)}, not {', '.join(SCALES)} of shape {list(shape)}"
    return None


def _stored_as(stored: TensorReader, name: str) -> str:
    return f"{stored.dtype(name)} of shape {list(stored.shape(name))}"


def _slices(ranges: Ranges) -> tuple[slice, ...]:
    return tuple(slice(start, end) for start, end in ranges)


def _read_scales(stored: TensorReader, name: str, ranges: Ranges) -> np.ndarray:
    """Return scales as float32."""
    scales = stored.read(name, _slices(ranges))
    return (scales.view(ml_dtypes.float8_e8m0fnu) if scales.dtype == np.uint8 else scales).astype(np.float32)
