"""Tensors of a GGUF file under Hugging Face's names and in its layout, dequantised one part at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np

from jaxtrace.checkpoints.gguf.files import ROPE_FACTORS, GgufModel, StoredTensor, library, open_again
from jaxtrace.checkpoints.safetensors import DTYPES
from jaxtrace.documents import MIB
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.families.weights import ParamPath, Weight

CHUNK = 16 * MIB  # bytes of the rows, as float32, that are dequantised at once
# Architectures whose q and k llama.cpp stores with the two halves of a head's rows interleaved, the order in which it
# rotates them.
INTERLEAVED = ("llama", "mistral3", "smollm3")
# llama.cpp's names, within a layer, that the library's map lacks.
SCALES = {"router.scale": "ffn_gate_inp.scale", "router.per_expert_scale": "ffn_down_exps.scale"}


class GgufTensors:
    """Tensors of a GGUF model; the interface is that of `safetensors.Tensors`.

    A tensor that the family does not have keeps llama.cpp's name; factors of rotary positions belong to the config.
    """

    def __init__(self, model: GgufModel, config: DecoderConfig) -> None:
        self._model, self._gguf = model, library(model.files[0])
        names = _hugging_face_names(config, model.architecture, self._gguf)
        self._views: dict[str, TensorView] = {}
        for name, stored in model.tensors.items():
            if name in names:
                canonical, weight, path = names[name]
                self._views[canonical] = _view(config, model.architecture, stored, weight, path)
            elif name not in ROPE_FACTORS:
                self._views[name] = TensorView(stored)
        self._files: dict[Path, np.ndarray] = {}

    def __enter__(self) -> GgufTensors:
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.clear()

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return self._views[name].shape

    def dtype(self, name: str) -> str:
        """Return the dtype of a tensor as it is read, under safetensors' name ("F32", "BF16")."""
        return self._views[name].dtype

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Return a part of a tensor; only its rows, and the blocks that hold its columns, are dequantised."""
        view = self._views[name]
        if view.stored.file not in self._files:
            with open_again(self._model, view.stored.file) as file:
                self._files[view.stored.file] = np.memmap(file, np.uint8, "r")
        return view.read(self._files[view.stored.file], self._gguf, index)


def _hugging_face_names(
    config: DecoderConfig, architecture: str, gguf: ModuleType
) -> dict[str, tuple[str, Weight, ParamPath]]:
    """Return the name, the line of the weight table and the parameter's path by llama.cpp's name."""
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    first_layer = gguf.get_tensor_name_map(arch, 1)
    names: dict[str, tuple[str, Weight, ParamPath]] = {}
    for weight in FAMILIES[config.family].WEIGHTS:
        name = weight.at(0)[0]
        if (scale := SCALES.get(name.removeprefix("model.layers.0."))) is not None:
            stored = f"blk.0.{scale}"
        else:
            name = name if name.endswith((".weight", ".bias")) else f"{name}.weight"  # llama.cpp names others so
            stored = first_layer.get_name(name, try_suffixes=(".weight", ".bias"))
        for layer in range(config.num_layers if weight.per_layer else 1):
            if stored is not None:
                name, path = weight.at(layer)
                names[stored.replace("blk.0.", f"blk.{layer}.")] = name, weight, path
    return names


def _view(
    config: DecoderConfig, architecture: str, stored: StoredTensor, weight: Weight, path: ParamPath
) -> TensorView:
    if path[-1] == "shared_gate":  # llama.cpp stores its only row as a vector
        stored = replace(stored, shape=(1, *stored.shape[-1:]))
    heads = {"q": config.num_heads, "k": config.kv_heads}.get(str(path[-1]).removesuffix("_bias"))
    rows = None
    if architecture in INTERLEAVED and heads is not None and stored.shape[0] == heads * config.head_dim:
        rows = np.arange(stored.shape[0]).reshape(heads, -1, 2).swapaxes(1, 2).ravel()
    elif weight.by_head and stored.shape[0] == 3 * config.num_heads * config.head_dim:
        # llama.cpp stores the rows of q of all heads, then those of k, then those of v.
        rows = np.arange(stored.shape[0]).reshape(3, config.num_heads, -1).swapaxes(0, 1).ravel()
    added = config.norm_offset if path[-1] == "weight" else 0.0
    return TensorView(stored, weight.transposed and len(stored.shape) == 2, rows, added)


@dataclass(frozen=True)
class TensorView:
    """A stored tensor as Hugging Face stores it.

    Attributes:
      stored: tensor in the file.
      transposed: True if Hugging Face stores its transpose.
      rows: stored row of each row; None if the order is the same.
      added: constant that llama.cpp added to the values.
    """

    stored: StoredTensor
    transposed: bool = False
    rows: np.ndarray | None = None
    added: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor in Hugging Face's layout."""
        return self.stored.shape[::-1] if self.transposed else self.stored.shape

    @property
    def dtype(self) -> str:
        """Dtype of the values that `read` returns, under safetensors' name."""
        return "F32" if self.added else self.stored.dtype

    def read(self, data: np.ndarray, gguf: ModuleType, index: tuple[slice, ...]) -> np.ndarray:
        """Return a part of the tensor, copied out of the mapped bytes `data` of its file."""
        ranges = [
            slice(*part.indices(size)[:2])
            for part, size in itertools.zip_longest(index, self.shape, fillvalue=slice(None))
            if isinstance(size, int)
        ]
        if self.transposed:
            return self._read(data, gguf, ranges[::-1]).T
        values = self._read(data, gguf, ranges)
        return values - np.float32(self.added) if self.added else values

    def _read(self, data: np.ndarray, gguf: ModuleType, ranges: list[slice]) -> np.ndarray:
        stored = self.stored
        end = stored.offset + math.prod(stored.shape[:-1]) * stored.bytes_per_row
        table = data[stored.offset : end].reshape(-1, stored.bytes_per_row)
        first = ranges[0] if self.rows is None else self.rows[ranges[0]]
        if stored.kind in DTYPES:
            return np.array(table.view(DTYPES[stored.kind]).reshape(stored.shape)[(first, *ranges[1:])])
        if len(ranges) == 1:
            return _dequantised(table, stored, gguf, np.arange(1), slice(0, stored.shape[0]))[0][first]
        *leading, columns = (first, *ranges[1:])
        rows = np.arange(len(table)).reshape(stored.shape[:-1])[(*leading,)]
        values = _dequantised(table, stored, gguf, rows.ravel(), columns)
        return values.reshape(*rows.shape, columns.stop - columns.start)


def _dequantised(
    table: np.ndarray, stored: StoredTensor, gguf: ModuleType, rows: np.ndarray, columns: slice
) -> np.ndarray:
    """Dequantise a range of columns of some rows, and of the blocks that hold them only, a few rows at a time."""
    kind = gguf.GGMLQuantizationType[stored.kind]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    start, end = columns.start // block, -(-columns.stop // block)
    values = np.empty((len(rows), columns.stop - columns.start), np.float32)
    step = max(1, CHUNK // (4 * block * max(1, end - start)))
    inner = slice(columns.start - start * block, columns.stop - start * block)
    for first in range(0, len(rows) if values.size else 0, step):
        part = slice(first, first + step)
        with np.errstate(all="ignore"):  # a damaged scale may be infinite
            values[part] = gguf.quants.dequantize(table[rows[part], start * size : end * size], kind)[:, inner]
    return values
