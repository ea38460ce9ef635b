"""Between a checkpoint's tensors and a decoder's parameters: every weight matched exactly once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxtrace.checkpoints.safetensors import Tensors
from jaxtrace.errors import CheckpointError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, abstract_params
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.families.weights import ParamPath

FLOATS = ("F64", "F32", "F16", "BF16")


def weight_table(config: DecoderConfig) -> dict[str, tuple[ParamPath, jax.ShapeDtypeStruct]]:
    """Checkpoint name → (place among the parameters, the parameter's shape), for every parameter of a decoder."""
    leaves = dict(_leaves(abstract_params(config)))
    table = {}
    for weight in FAMILIES[config.family].WEIGHTS:
        for layer in range(config.layers if weight.per_layer else 1):
            name, path = weight.at(layer)
            if path in leaves:
                table[name] = path, leaves[path]
    return table


def read_params(config: DecoderConfig, tensors: Tensors, source: str, dtype: Any) -> Params:
    """Parameters in `dtype`, layers as a list, one tensor in host memory at a time.

    Raises:
      CheckpointError: weights are missing, unknown, of a wrong shape or quantised; all problems in one line.
    """
    table = weight_table(config)
    family = FAMILIES[config.family]
    if config.tied and family.EMBEDDING not in tensors:  # tied, and stored under its other name
        table[family.UNEMBEDDING] = table.pop(family.EMBEDDING)
    _check(config, table, tensors, source)
    params = abstract_params(config)
    for name, (path, leaf) in table.items():
        array = tensors.read(name).reshape(leaf.shape)
        _place(params, path, jax.device_put(array.astype(dtype)))
    return params


def export_weights(config: DecoderConfig, params: Params) -> dict[str, np.ndarray]:
    """Parameters under the checkpoint's names, matrices as [out, in]; the inverse of `read_params`."""
    leaves = dict(_leaves(params))
    exported = {}
    for name, (path, _) in weight_table(config).items():
        array = np.asarray(leaves[path])
        exported[name] = array.reshape(_stored_shape(path, array.shape))
    return exported


def _stored_shape(path: ParamPath, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Biases are vectors; matrices have their heads folded into the axis they belong to."""
    if str(path[-1]).endswith("_bias"):
        return (math.prod(shape),)
    if len(shape) < 3:
        return shape
    return (shape[0], math.prod(shape[1:])) if path[-1] == "o" else (math.prod(shape[:-1]), shape[-1])


def _check(
    config: DecoderConfig, table: dict[str, tuple[ParamPath, jax.ShapeDtypeStruct]], tensors: Tensors, source: str
) -> None:
    stored = set(tensors)
    unknown = {name for name in stored - set(table) if not _ignored(config, name)}
    problems = [f"missing: {name}" for name in table if name not in stored]
    problems += [f"unknown: {name}" for name in sorted(unknown)]
    for name, (path, leaf) in table.items():
        if name not in stored:
            continue
        expected = _stored_shape(path, leaf.shape)
        if tensors.shape(name) != expected:
            problems.append(f"{name} has shape {list(tensors.shape(name))}, not {list(expected)}")
        elif tensors.dtype(name) not in FLOATS:
            problems.append(f"{name} is stored as {tensors.dtype(name)}, not as floats: a quantised checkpoint")
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointError(f"{source}: the weights do not fit the config ({shown})")


def _ignored(config: DecoderConfig, name: str) -> bool:
    family = FAMILIES[config.family]
    if config.tied and name == family.UNEMBEDDING:  # tied, and stored all the same
        return True
    patterns = (re.escape(p).replace(r"\{\}", r"\d+") for p in family.IGNORED)
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _leaves(tree: Params) -> Iterator[tuple[ParamPath, Any]]:
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield tuple(key.key if hasattr(key, "key") else key.idx for key in keys), leaf


def _place(params: Params, path: ParamPath, value: jax.Array) -> None:
    *parents, last = path
    node: Any = params
    for part in parents:
        node = node[part]
    node[last] = value
