"""Which tensor of a checkpoint fills which parameter of a decoder: every one matched exactly once."""

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
class Use:
    """One parameter that a stored tensor fills.

    Attributes:
      path: the parameter's place.
      shape: the parameter's.
      transposed: the tensor is stored [in, out].
      part: (i, n): the parameter is the i-th of n equal parts of the tensor's outputs.
    """

    path: ParamPath
    shape: tuple[int, ...]
    transposed: bool
    part: tuple[int, int]

    @property
    def folded(self) -> int | None:
        """The axis of heads, stored as one with the axis after it; None where there is none."""
        name = str(self.path[-1])
        if len(self.shape) == 3:
            return 1 if name == "o" else 0
        return 0 if name.endswith("_bias") and len(self.shape) == 2 else None

    @property
    def matrix(self) -> tuple[int, ...]:
        """The parameter's shape with its heads folded, [out, in] or [out]."""
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


Table = dict[str, list[Use]]  # a tensor's name → the parameters it fills, in the order of its parts


def weight_table(config: DecoderConfig) -> Table:
    """Canonical name → the parameters that a tensor of that name fills, for every parameter of a decoder."""
    shapes = {path: leaf.shape for path, leaf in leaves(abstract_params(config))}
    vision = config.vision
    layers = max(config.layers, vision.layers if vision else 0, vision.global_layers if vision else 0)
    table: Table = {}
    for weight in FAMILIES[config.family].WEIGHTS:
        for layer in range(layers if weight.per_layer else 1):
            name, path = weight.at(layer)
            if path in shapes:
                table.setdefault(name, []).append(Use(path, shapes[path], weight.transposed, weight.part))
    return {name: sorted(uses, key=lambda use: use.part) for name, uses in table.items()}


def match(config: DecoderConfig, tensors: Tensors, source: str) -> Table:
    """The weight table of a checkpoint, under the checkpoint's own names.

    Raises:
      CheckpointError: weights are quantised, or some are missing, unknown, stored twice, of a wrong shape or dtype; all
        problems in one line.
    """
    table, family = weight_table(config), FAMILIES[config.family]
    own: dict[str, list[str]] = {}  # canonical name → the checkpoint's
    for name in sorted(tensors):
        own.setdefault(_canonical(name, family.RENAMED), []).append(name)
    ignored = [*family.IGNORED]
    if config.tied and family.EMBEDDING not in own:  # stored under its other name
        table[family.UNEMBEDDING] = table.pop(family.EMBEDDING)
    elif config.tied:  # stored twice
        ignored.append(re.escape(family.UNEMBEDDING))
    wanted = {
        name: names
        for name, names in own.items()
        if name in table or not any(re.fullmatch(pattern, name) for pattern in ignored)
    }
    _refuse_quantised(tensors, [name for names in wanted.values() for name in names], source)
    problems = [f"missing: {name}" for name in table if name not in own]
    problems += [f"unknown: {name}" for canonical in wanted if canonical not in table for name in own[canonical]]
    problems += [f"stored twice: {' and '.join(own[name])}" for name in table if len(own.get(name, ())) > 1]
    matched = {own[name][0]: uses for name, uses in table.items() if name in own}
    for name, uses in matched.items():
        if tensors.shape(name) != uses[0].stored:
            problems.append(f"{name} has shape {list(tensors.shape(name))}, not {list(uses[0].stored)}")
        elif tensors.dtype(name) not in FLOATS:
            problems.append(f"{name} is stored as {tensors.dtype(name)}, not as floats")
    refuse_misfit(problems, source)
    return matched


def refuse_misfit(problems: list[str], source: str) -> None:
    """Raises CheckpointError with all problems in one line, where there are any."""
    if problems:
        raise CheckpointError(f"{source}: the weights do not fit the config ({'; '.join(problems)})")


def leaves(tree: Params) -> Iterator[tuple[ParamPath, Any]]:
    """Every leaf of nested dictionaries and lists, beside its place."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield place(keys), leaf


def place(keys: tuple[Any, ...]) -> ParamPath:
    """JAX's path into nested dictionaries and lists as one of ours."""
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
