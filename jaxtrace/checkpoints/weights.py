"""Between a checkpoint's tensors and a decoder's parameters."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxtrace.checkpoints.safetensors import Tensors
from jaxtrace.checkpoints.table import leaves, match, weight_table
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, abstract_params
from jaxtrace.models.families.weights import ParamPath


def read_params(config: DecoderConfig, tensors: Tensors, source: str, dtype: Any) -> Params:
    """Parameters in `dtype`, layers as a list, one tensor in host memory at a time.

    Raises:
      CheckpointError: weights are missing, unknown, of a wrong shape or quantised; all problems in one line.
    """
    params = abstract_params(config)
    for name, uses in match(config, tensors, source).items():
        for use in uses:
            stored = tensors.read(name)
            matrix = stored.T if use.transposed else stored
            i, n = use.part
            outputs = len(matrix) // n
            array = matrix[i * outputs : (i + 1) * outputs].reshape(use.shape)
            _place(params, use.path, jax.device_put(array.astype(dtype)))
    return params


def export_weights(config: DecoderConfig, params: Params) -> dict[str, np.ndarray]:
    """Parameters under the checkpoint's canonical names and in its shapes; the inverse of `read_params`."""
    arrays = dict(leaves(params))
    exported = {}
    for name, uses in weight_table(config).items():
        whole = np.concatenate([np.asarray(arrays[use.path]).reshape(use.matrix) for use in uses])
        exported[name] = np.ascontiguousarray(whole.T) if uses[0].transposed else whole
    return exported


def _place(params: Params, path: ParamPath, value: jax.Array) -> None:
    *parents, last = path
    node: Any = params
    for part in parents:
        node = node[part]
    node[last] = value
