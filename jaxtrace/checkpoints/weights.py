"""Maps between a checkpoint's tensors and a decoder's parameters."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrace.checkpoints.safetensors import DTYPES, TensorReader
from jaxtrace.checkpoints.table import FilledParam, leaves, match, param_path, stored_names, weight_table
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.families.weights import ParamPath

Bounds = tuple[tuple[int, int], ...]  # (start, end) of every axis

CHUNK = 16 * 2**20  # bytes of the rows, as float64, that are compared at once


def as_stored(config: DecoderConfig, tensors: TensorReader) -> tuple[DecoderConfig, tuple[str, ...]]:
    """Return the config that a checkpoint's tensors have, and notes on how they differ from the given one.

    An unembedding that is stored beside the embedding and differs from it is read, even if the config ties the two.
    transformers 5 does the same (`PreTrainedModel.tie_weights`).
    """
    names, family = stored_names(config, tensors), FAMILIES[config.family]
    stored = [names.by_canonical.get(name, [""])[0] for name in (family.EMBEDDING, family.UNEMBEDDING)]
    if not config.tied or not all(stored) or _same_values(tensors, *stored):
        return config, names.notes
    note = f"tie_word_embeddings is true, but {stored[1]} is stored and differs from {stored[0]}; it is read, not tied"
    return dataclasses.replace(config, tied=False), (*names.notes, note)


def _same_values(tensors: TensorReader, one: str, other: str) -> bool:
    """Compare two matrices by rows; those of a wrong shape or dtype count as equal, since `match` refuses them."""
    shape, dtypes = tensors.shape(one), {tensors.dtype(one), tensors.dtype(other)}
    if tensors.shape(other) != shape or len(shape) != 2 or not dtypes <= {*DTYPES}:
        return True
    step = max(1, CHUNK // (8 * max(1, shape[1])))
    for start in range(0, shape[0], step):
        rows = (slice(start, min(start + step, shape[0])),)
        a, b = tensors.read(one, rows), tensors.read(other, rows)
        if a.dtype == b.dtype and np.array_equal(a.view(np.uint8), b.view(np.uint8)):
            continue  # comparing bytes is several times faster than comparing bfloat16 numbers
        if not np.array_equal(a.astype(np.float64), b.astype(np.float64)):
            return False
    return True


class TensorWeights:
    """Parameters of a decoder in a checkpoint's safetensors or GGUF files.

    Raises:
      CheckpointError: weights are quantised, missing, unknown or of a wrong shape; the message lists them in one line,
        at most five.
    """

    def __init__(self, config: DecoderConfig, tensors: TensorReader, source: str) -> None:
        self._tensors = tensors
        table = match(config, tensors, source)
        self._sources: dict[ParamPath, dict[int | None, tuple[str, FilledParam]]] = {}
        for name, params in table.items():
            for param in params:
                self._sources.setdefault(param.path, {})[param.expert] = name, param

    def dtype(self, path: ParamPath) -> np.dtype:
        """Return the stored dtype of a parameter, which holds the values of all of its experts."""
        dtypes = {DTYPES[self._tensors.dtype(name)] for name, _ in self._sources[path].values()}
        return np.dtype(functools.reduce(jnp.promote_types, dtypes))

    def read(self, path: ParamPath, target: Any) -> Any:
        """Read a subtree of the parameters; each device's part is read by byte range and cast on the host.

        Args:
          path: path of the subtree.
          target: shapes, dtypes and shardings of the subtree.
        """
        return jax.tree_util.tree_map_with_path(
            lambda keys, leaf: self._read_array((*path, *param_path(keys)), leaf), target
        )

    def _read_array(self, path: ParamPath, target: jax.ShapeDtypeStruct) -> jax.Array:
        sources = self._sources[path]

        @functools.cache  # devices that hold the same part share it
        def read(bounds: Bounds) -> np.ndarray:
            if None in sources:
                return np.ascontiguousarray(read_part(self._tensors, *sources[None], bounds), target.dtype)
            experts, *matrix = bounds
            part = np.empty([end - start for start, end in bounds], target.dtype)
            for row, expert in enumerate(range(*experts)):
                part[row] = read_part(self._tensors, *sources[expert], tuple(matrix))
            return part

        def device_part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            return read(tuple(axis.indices(size)[:2] for axis, size in zip(index, target.shape, strict=True)))

        return jax.make_array_from_callback(target.shape, target.sharding, device_part)


def export_weights(config: DecoderConfig, params: Params) -> dict[str, np.ndarray]:
    """Return parameters under the checkpoint's canonical names and in its shapes; the inverse of reading."""
    arrays = dict(leaves(params))

    def joined(parts: list[FilledParam]) -> np.ndarray:
        """Return a tensor, or one expert of it."""
        by_head, inputs = parts[0].stride is not None, parts[0].matrix[1:]

        def stored(part: FilledParam) -> np.ndarray:
            array = np.asarray(arrays[part.path][... if part.expert is None else part.expert])
            return _as_stored(array, part).reshape(-1, *([part.width] if by_head else []), *inputs)

        tensor = np.concatenate([stored(part) for part in parts], axis=1 if by_head else 0).reshape(-1, *inputs)
        return np.ascontiguousarray(tensor.T) if parts[0].transposed else tensor

    exported = {}
    for name, filled in weight_table(config).items():
        tensors = [joined([*parts]) for _, parts in itertools.groupby(filled, lambda part: part.expert)]
        exported[name] = np.stack(tensors) if filled[0].experts else tensors[0]
    return exported


def _as_stored(array: np.ndarray, param: FilledParam) -> np.ndarray:
    """Return a parameter, or one expert of it, with the outputs of each head in the order of the tensor."""
    if not param.paired:
        return array
    heads, width, *inputs = param.shape
    return array.reshape(heads, 2, width // 2, *inputs).swapaxes(1, 2)


def read_part(tensors: TensorReader, name: str, param: FilledParam, bounds: Bounds) -> np.ndarray:
    """Read a part of a parameter, in the stored dtype.

    Entries that lie together in the tensor are read at once, and so are outputs between which others lie.
    """
    axis = param.folded or 0
    after = axis + param.positions.ndim
    positions = param.positions[tuple(slice(*pair) for pair in bounds[axis:after])].ravel()

    def read(start: int, end: int) -> np.ndarray:
        index = tuple(slice(*pair) for pair in (*bounds[:axis], (start, end), *bounds[after:]))
        index = index[::-1] if param.transposed else index
        if param.experts:
            assert param.expert is not None
            (part,) = tensors.read(name, (slice(param.expert, param.expert + 1), *index))
        else:
            part = tensors.read(name, index)
        return part.T if param.transposed else part

    step, order = (param.stride or 1) if param.folded is None else 1, np.argsort(positions)
    runs = np.split(positions[order], np.flatnonzero(np.diff(positions[order]) != step) + 1)
    parts = [read(int(run[0]), int(run[-1]) + 1)[::step] for run in runs]
    matrix = parts[0] if len(parts) == 1 else np.concatenate(parts, axis)
    matrix = np.take(matrix, np.argsort(order), axis) if param.paired else matrix
    return matrix.reshape([end - start for start, end in bounds])
