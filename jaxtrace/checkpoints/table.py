"""Weight table: which tensor of a checkpoint fills which parameter of a decoder, each exactly once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax

from jaxtrace.checkpoints.safetensors import Tensors
from jaxtrace.errors import CheckpointError
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, abstract_params
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.families.weights import ParamPath

FLOATS = ("F64", "F32", "F16", "BF16")
QUANTISED = re.compile(
    r".*\.(SCB|absmax|quant_map|quant_state\..+|qweight|qzeros|scales|g_idx|weight_packed|(weight|input)_scale(_inv)?)"
)


@dataclass(frozen=True)
class FilledParam:
    """A parameter that a stored tensor, or a part of one, fills.

    Attributes:
      path: path of the parameter.
      shape: shape of the parameter.
      transposed: True if the tensor is stored [in, out].
      part: (i, n), if the parameter is the i-th of n equal parts of the tensor's outputs.
    """

    path: ParamPath
    shape: tuple[int, ...]
    transposed: bool
    part: tuple[int, int]

    @property
    def folded(self) -> int | None:
        """Axis of heads, which is stored as one with the axis after it; None for a parameter without heads."""
        name = str(self.path[-1])
        if len(self.shape) == 3:
            return 1 if name == "o" else 0
        return 0 if name.endswith("_bias") and len(self.shape) == 2 else None

    @property
    def matrix(self) -> tuple[int, ...]:
        """Shape of the parameter with its heads folded, [out, in] or [out]."""
        if self.folded is None:
            return self.shape
        before, (heads, width, *after) = self.shape[: self.folded], self.shape[self.folded :]
        return (*before, heads * width, *after)

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of the whole tensor."""
        outputs, *inputs = self.matrix
        shape = (outputs * self.part[1], *inputs)
        return shape[::-1] if self.transposed else shape


Table = dict[str, list[FilledParam]]  # name of a tensor → the parameters it fills, in the order of its parts


def weight_table(config: DecoderConfig) -> Table:
    """Return the tensors that fill a decoder's parameters, by canonical name."""
    shapes = {path: leaf.shape for path, leaf in leaves(abstract_params(config))}
    vision = config.vision
    layers = max(config.num_layers, vision.num_layers if vision else 0, vision.global_layers if vision else 0)
    table: Table = {}
    for weight in FAMILIES[config.family].WEIGHTS:
        for layer in range(layers if weight.per_layer else 1):
            name, path = weight.at(layer)
            if path in shapes:
                table.setdefault(name, []).append(FilledParam(path, shapes[path], weight.transposed, weight.part))
    return {name: sorted(params, key=lambda param: param.part) for name, params in table.items()}


def match(config: DecoderConfig, tensors: Tensors, source: str) -> Table:
    """Return the weight table of a checkpoint, under the checkpoint's names.

    Raises:
      CheckpointError: weights are quantised, missing, unknown, stored twice, or of a wrong shape or dtype; the message
        lists all problems in one line.
    """
    table, family = weight_table(config), FAMILIES[config.family]
    stored: dict[str, list[str]] = {}  # canonical name → names in the checkpoint
    for name in sorted(tensors):
        stored.setdefault(_canonical(name, family.RENAMED), []).append(name)
    ignored = [*family.IGNORED]
    if config.tied and family.EMBEDDING not in stored:  # the tied matrix is stored as the unembedding
        table[family.UNEMBEDDING] = table.pop(family.EMBEDDING)
    elif config.tied:  # both matrices are stored
        ignored.append(re.escape(family.UNEMBEDDING))
    relevant = {
        canonical: names
        for canonical, names in stored.items()
        if canonical in table or not any(re.fullmatch(pattern, canonical) for pattern in ignored)
    }
    _refuse_quantised(tensors, [name for names in relevant.values() for name in names], source)
    problems = [f"missing: {name}" for name in table if name not in stored]
    problems += [f"unknown: {name}" for canonical in relevant if canonical not in table for name in stored[canonical]]
    problems += [f"stored twice: {' and '.join(stored[name])}" for name in table if len(stored.get(name, ())) > 1]
    matched = {stored[name][0]: params for name, params in table.items() if name in stored}
    for name, params in matched.items():
        if tensors.shape(name) != params[0].stored:
            problems.append(f"{name} has shape {list(tensors.shape(name))}, not {list(params[0].stored)}")
        elif tensors.dtype(name) not in FLOATS:
            problems.append(f"{name} is stored as {tensors.dtype(name)}, not as floats")
    raise_problems(problems, source)
    return matched


def raise_problems(problems: list[str], source: str) -> None:
    """Raise CheckpointError with all problems in one line, if there are any."""
    if problems:
        raise CheckpointError(f"{source}: the weights do not fit the config ({'; '.join(problems)})")


def leaves(tree: Params) -> Iterator[tuple[ParamPath, Any]]:
    """Yield the path and value of every leaf of nested dictionaries and lists."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield param_path(keys), leaf


def param_path(keys: tuple[Any, ...]) -> ParamPath:
    """Convert JAX's path into nested dictionaries and lists."""
    return tuple(key.key if hasattr(key, "key") else key.idx for key in keys)


def _canonical(name: str, renamed: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renamed:
        name = re.sub(pattern, replacement, name)
    return name


def _refuse_quantised(tensors: Tensors, names: list[str], source: str) -> None:
    for name in names:
        dtype = tensors.dtype(name)
        if QUANTISED.fullmatch(name) or dtype.startswith(("F8_", "F6_", "F4", "I8", "U8")):
            raise CheckpointError(f"{source}: is quantised ({name}, stored as {dtype}); use the unquantised checkpoint")
