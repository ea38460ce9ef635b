"""Between a checkpoint's tensors and a decoder's parameters."""

from __future__ import annotations

import functools
from typing import Any

import jax
import ml_dtypes
import numpy as np

from jaxtrace.checkpoints.safetensors import Tensors
from jaxtrace.checkpoints.table import Use, leaves, match, place, weight_table
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params
from jaxtrace.models.families.weights import ParamPath

Bounds = tuple[tuple[int, int], ...]  # (start, end) of every axis

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


class Weights:
    """The parameters of a decoder as a checkpoint stores them.

    Raises:
      CheckpointError: weights are quantised, missing, unknown, of a wrong shape; all problems in one line.
    """

    def __init__(self, config: DecoderConfig, tensors: Tensors, source: str):
        self._tensors = tensors
        table = match(config, tensors, source)
        self._uses = {use.path: (name, use) for name, uses in table.items() for use in uses}

    def dtype(self, path: ParamPath) -> np.dtype:
        """In which a parameter is stored."""
        name, _ = self._uses[path]
        return np.dtype(DTYPES[self._tensors.dtype(name)])

    def read(self, path: ParamPath, wanted: Any) -> Any:
        """The parameters at a place, each device's part read by byte range and cast on the host.

        Args:
          path: into the parameters.
          wanted: the tree there: shapes, dtypes and shardings.
        """
        return jax.tree_util.tree_map_with_path(lambda keys, leaf: self._array((*path, *place(keys)), leaf), wanted)

    def _array(self, path: ParamPath, wanted: jax.ShapeDtypeStruct) -> jax.Array:
        name, use = self._uses[path]

        @functools.cache  # devices that hold the same part share it
        def part(bounds: Bounds) -> np.ndarray:
            return np.ascontiguousarray(_read(self._tensors, name, use, bounds), wanted.dtype)

        def of_device(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            return part(tuple(axis.indices(size)[:2] for axis, size in zip(index, use.shape, strict=True)))

        return jax.make_array_from_callback(use.shape, wanted.sharding, of_device)


def export_weights(config: DecoderConfig, params: Params) -> dict[str, np.ndarray]:
    """Parameters under the checkpoint's canonical names and in its shapes; the inverse of reading."""
    arrays = dict(leaves(params))
    exported = {}
    for name, uses in weight_table(config).items():
        whole = np.concatenate([np.asarray(arrays[use.path]).reshape(use.matrix) for use in uses])
        exported[name] = np.ascontiguousarray(whole.T) if uses[0].transposed else whole
    return exported


def _read(tensors: Tensors, name: str, use: Use, bounds: Bounds) -> np.ndarray:
    """A part of a parameter, in the stored dtype.

    Heads lie one after the other in the tensor, so that a part of every head cannot be read as one range: whole heads
    are read then, and cut.
    """
    axis, inside = use.folded, None
    ranges = list(bounds)
    if axis is not None:
        (first, last), (start, end) = ranges[axis : axis + 2]
        width = use.shape[axis + 1]
        if last - first > 1:
            start, end, inside = 0, width, slice(start, end)
        ranges[axis : axis + 2] = [(first * width + start, (last - 1) * width + end)]
    (start, end), *others = ranges
    before = use.part[0] * use.matrix[0]
    index = tuple(slice(*r) for r in ((before + start, before + end), *others))
    found = tensors.read(name, index[::-1]).T if use.transposed else tensors.read(name, index)
    if axis is None:
        return found
    shape = [end - start for start, end in bounds]
    if inside is None:
        return found.reshape(shape)
    shape[axis + 1] = use.shape[axis + 1]
    return found.reshape(shape)[(slice(None),) * (axis + 1) + (inside,)]
