"""Weight table: which tensor of a checkpoint fills which parameter of a decoder, each exactly once."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jaxtrace.checkpoints.quantised import UNQUANTISED
from jaxtrace.checkpoints.safetensors import DTYPES, MERGE, TensorReader
from jaxtrace.errors import CheckpointError, few
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, abstract_params
from jaxtrace.models.families import FAMILIES
from jaxtrace.models.families.weights import ParamPath, Weight

QUANTISED = re.compile(
    r".*\.(SCB|absmax|quant_map|quant_state\..+|qweight|qzeros|scales|g_idx|weight_packed|(weight|input)_scale(_inv)?)"
)

# Modules that wrap a model or its parts: torch.compile, data parallelism, FSDP, activation checkpointing.
WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
BASE_MODELS = ("model", "transformer", "gpt_neox", "language_model", "base_model", "pretrained_model")
# Tensors that old checkpoints store and a config determines: rotary positions and numbers of positions.
BUFFERS = r"(.*\.)?(rotary_emb\w*\..+|\w*inv_freq|(cos|sin)_cached|position_ids)"
# Heads of classifiers, reward models, value functions and question answering.
EXTRA_HEADS = re.compile(
    r"(score|classifier|classification_head|qa_outputs|multiple_choice_head|(v|value|reward|regression|rm|critic|medusa)_head)\..+"
)


@dataclass(frozen=True)
class FilledParam:
    """A parameter, or one expert of a parameter, that a stored tensor, or a part of one, fills.

    Attributes:
      path: path of the parameter.
      shape: shape of the parameter, or of one of its experts.
      transposed: True if the tensor is stored [in, out].
      outputs: number of outputs of the whole tensor.
      offset: first output of the parameter in the tensor.
      stride: number of outputs from one head of the parameter, or without heads one output, to its next in the tensor;
        None if they are adjacent.
      paired: see `Weight`.
      expert: number of the expert (0-based), on the first axis of the parameter; None for a whole parameter.
      experts: number of experts on the first axis of the tensor; 0 for a tensor without such an axis.
    """

    path: ParamPath
    shape: tuple[int, ...]
    transposed: bool = False
    outputs: int = 0
    offset: int = 0
    stride: int | None = None
    paired: bool = False
    expert: int | None = None
    experts: int = 0

    @property
    def folded(self) -> int | None:
        """Axis of heads, which is stored as one with the axis after it; None for a parameter without heads."""
        name = str(self.path[-1])
        if len(self.shape) == 3 or name.endswith("_conv"):
            return 1 if name == "o" else 0
        by_head = name.endswith("_bias") or self.path[-2:-1] in (("q_norm",), ("k_norm",))
        return 0 if by_head and len(self.shape) == 2 else None

    @property
    def width(self) -> int:
        """Number of outputs of a head; 1 without heads."""
        return 1 if self.folded is None else self.shape[self.folded + 1]

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
        shape = (self.outputs, *self.matrix[1:])
        shape = shape[::-1] if self.transposed else shape
        return (self.experts, *shape) if self.experts else shape

    @property
    def positions(self) -> np.ndarray:
        """Positions in the tensor [out, in] of every head's entries [N, H], or of the outputs [out] without heads."""
        starts = self.offset + (self.stride or self.width) * np.arange(self.shape[self.folded or 0])
        if self.folded is None:
            return starts
        within = np.arange(self.width).reshape(-1, 2).T.ravel() if self.paired else np.arange(self.width)
        return starts[:, None] + within


Table = dict[str, list[FilledParam]]  # name of a tensor → the parameters it fills, in the order of its parts


Form = tuple[Weight, int, tuple[int, ...]]  # a line of the family's table, a layer, the parameter's shape
Line = tuple[str, Weight, FilledParam]  # name of a tensor, its line of the family's table, what it fills


def weight_table(config: DecoderConfig, stored: Container[str] = ()) -> Table:
    """Return the tensors that fill a decoder's parameters, by canonical name.

    Where a family's table has several forms of a weight, the first of which some tensor is stored is returned, or else
    the first.

    Args:
      config: decoder's config.
      stored: canonical names of the tensors in a checkpoint.
    """
    forms: dict[ParamPath, list[Form]] = {}
    for form in _forms(config):
        forms.setdefault(form[0].at(form[1])[1], []).append(form)
    lines: dict[str, list[Line]] = {}
    for choices in forms.values():
        chosen = next((form for form in choices if any(name in stored for name in _names(*form))), choices[0])
        for line in _lines(*chosen):
            lines.setdefault(line[0], []).append(line)
    return {name: _placed(parts) for name, parts in lines.items()}


def _forms(config: DecoderConfig) -> Iterator[Form]:
    """Yield all forms in which a checkpoint may store each parameter, as one tensor or one for each expert."""
    shapes = {path: leaf.shape for path, leaf in leaves(abstract_params(config))}
    vision = config.vision
    layers = max(config.num_layers, vision.num_layers if vision else 0, vision.global_layers if vision else 0)
    for weight in FAMILIES[config.family].WEIGHTS:
        for layer in range(layers if weight.per_layer else 1):
            path = weight.at(layer)[1]
            if path in shapes:
                yield weight, layer, shapes[path]


def _names(weight: Weight, layer: int, shape: tuple[int, ...]) -> list[str]:
    """Return the names of the tensors of one parameter."""
    return [weight.at(layer, i)[0] for i in range(shape[0] if weight.per_expert else 1)]


def _lines(weight: Weight, layer: int, shape: tuple[int, ...]) -> list[Line]:
    """Return the lines of one parameter."""
    name, path = weight.at(layer)
    if not weight.of_experts:
        return [(name, weight, FilledParam(path, shape, weight.transposed, paired=weight.paired))]
    number, *matrix = shape
    stacked = 0 if weight.per_expert else number
    return [
        (
            weight.at(layer, i)[0],
            weight,
            FilledParam(path, tuple(matrix), weight.transposed, expert=i, experts=stacked),
        )
        for i in range(number)
    ]


def _placed(lines: list[Line]) -> list[FilledParam]:
    """Return the parameters of one tensor, in the order of its parts, with their places in the tensor."""
    by_expert: dict[int | None, list[Line]] = {}
    for line in lines:
        by_expert.setdefault(line[2].expert, []).append(line)
    return [param for parts in by_expert.values() for param in _placed_parts(parts)]


def _placed_parts(parts: list[Line]) -> list[FilledParam]:
    by_head = parts[0][1].by_head
    params = [param for *_, param in sorted(parts, key=lambda line: line[1].part)]
    sizes = [param.width if by_head else param.matrix[0] for param in params]
    outputs, stride = sum(param.matrix[0] for param in params), sum(sizes) if by_head else None
    return [
        dataclasses.replace(param, outputs=outputs, offset=offset, stride=stride)
        for param, offset in zip(params, itertools.accumulate(sizes[:-1], initial=0), strict=True)
    ]


@dataclass(frozen=True)
class StoredNames:
    """Names of a checkpoint's tensors.

    Attributes:
      by_canonical: names in the checkpoint by canonical name; unknown ones stand under themselves.
      notes: sentences on names that differ from the published ones, and on weights that are ignored.
    """

    by_canonical: dict[str, list[str]]
    notes: tuple[str, ...]


def stored_names(config: DecoderConfig, tensors: TensorReader) -> StoredNames:
    """Find the canonical names of a checkpoint's tensors; tensors that no decoder has are ignored.

    A name in none of the family's published forms is read without the names of wrappers and of base models. It fills
    only a weight that is not stored under a published name.
    """
    family = FAMILIES[config.family]
    known = _all_names(config) | {family.EMBEDDING, family.UNEMBEDDING}
    by_bare = {_bare(name): name for name in known}
    unshared = _without_sharing(config)
    unused = {_bare(name) for name in _all_names(unshared)} - by_bare.keys() if unshared != config else set()
    stored: dict[str, list[str]] = {}
    others: list[tuple[str, str]] = []  # (canonical name by the bare one, name in the checkpoint)
    heads = []
    for name in sorted(tensors):
        canonical = _renamed(name, family.RENAMED)
        bare = _bare(canonical)
        if canonical in known:
            stored.setdefault(canonical, []).append(name)
        elif EXTRA_HEADS.fullmatch(bare):
            heads.append(name)
        elif bare not in unused and not any(re.fullmatch(pattern, bare) for pattern in (BUFFERS, *family.IGNORED)):
            others.append((by_bare.get(bare, name), name))
    published = {*stored}
    renamed = [f"{name} as {canonical}" for canonical, name in others if canonical in known - published]
    for canonical, name in others:
        stored.setdefault(name if canonical in published else canonical, []).append(name)
    notes = [f"weights are read under other names: {few(renamed, most=1)}"] if renamed else []
    notes += [f"weights of other heads are ignored: {few(heads)}"] if heads else []
    return StoredNames(stored, tuple(notes))


def _all_names(config: DecoderConfig) -> set[str]:
    """Return the canonical names of the tensors in all forms of a checkpoint."""
    return {name for form in _forms(config) for name in _names(*form)}


def _without_sharing(config: DecoderConfig) -> DecoderConfig:
    """Return a config whose layers have keys and values of their own, also where no layer attends to them.

    Checkpoints of Gemma 4 store these weights.
    """
    return dataclasses.replace(
        config, pattern=tuple(dataclasses.replace(kind, kv_source=None) for kind in config.pattern)
    )


def match(config: DecoderConfig, tensors: TensorReader, source: str) -> Table:
    """Return the weight table of a checkpoint, under the checkpoint's names.

    Raises:
      CheckpointError: weights are quantised, missing, unknown, stored twice, or of a wrong shape or dtype; the message
        lists them in one line, at most five.
    """
    family, stored = FAMILIES[config.family], stored_names(config, tensors).by_canonical
    table = weight_table(config, stored)
    both = config.tied and family.EMBEDDING in stored and family.UNEMBEDDING in stored
    if config.tied and family.EMBEDDING not in stored:  # the tied matrix is stored as the unembedding
        table[family.UNEMBEDDING] = table.pop(family.EMBEDDING)
    _refuse_quantised(tensors, [name for names in stored.values() for name in names], source)
    unread = {family.UNEMBEDDING: table[family.EMBEDDING]} if both else {}
    if adapter := next((name for name in tensors if re.search(r"\.(lora|adalora|lokr|hada)_\w+", name)), None):
        raise CheckpointError(
            f"{source}: holds a LoRA or other adapter beside the model's weights ({adapter}); {MERGE}"
        )
    others = {canonical: names for canonical, names in stored.items() if canonical not in (table | unread)}
    known = _all_names(config) if others else set()  # the other tensors of these names repeat weights in another form
    problems = Problems(
        missing=[name for name in table if name not in stored],
        unknown=[x for canonical, names in others.items() if canonical not in known for x in names],
        twice=[" and ".join(names) for canonical, names in stored.items() if len(names) > 1]
        + [x for canonical, names in others.items() if canonical in known for x in names],
    )
    matched = {stored[name][0]: params for name, params in (table | unread).items() if name in stored}
    for name, (param, *_) in matched.items():
        if tensors.shape(name) != param.stored:
            problems.wrong.append(f"{name} has shape {list(tensors.shape(name))}, not {list(param.stored)}")
        elif tensors.dtype(name) not in DTYPES:
            problems.wrong.append(f"{name} is stored as {tensors.dtype(name)}, not as floats")
    problems.check(source)
    return {stored[name][0]: params for name, params in table.items()}


@dataclass
class Problems:
    """Differences between stored weights and those of a config.

    Attributes:
      missing: names that the config has and the checkpoint lacks.
      unknown: names that the config lacks.
      twice: names that are stored more than once.
      wrong: sentences on weights of a wrong shape or dtype.
    """

    missing: list[str]
    unknown: list[str]
    twice: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def check(self, source: str) -> None:
        """Raise CheckpointError with the first problems of each kind in one line, if there are any."""
        kinds = {"missing: ": self.missing, "unknown: ": self.unknown, "stored twice: ": self.twice, "": self.wrong}
        kinds = {kind: items for kind, items in kinds.items() if items}
        if not kinds:
            return
        most = 5 if sum(map(len, kinds.values())) <= 5 else 5 // len(kinds)
        texts = [kind + few(items, ", " if kind else "; ", most) + _common(items) for kind, items in kinds.items()]
        raise CheckpointError(f"{source}: the weights do not fit the config ({'; '.join(texts)})")


def _common(names: Sequence[str]) -> str:
    """Return a remark on the beginning that all names have in common; "" if there is none."""
    columns = zip(*(name.split(".") for name in names), strict=False)
    common = ".".join(column[0] for column in itertools.takewhile(lambda column: len({*column}) == 1, columns))
    return f" (all under {common})" if common and len(names) > 1 else ""


def leaves(tree: Params) -> Iterator[tuple[ParamPath, Any]]:
    """Yield the path and value of every leaf of nested dictionaries and lists."""
    for keys, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield param_path(keys), leaf


def param_path(keys: tuple[Any, ...]) -> ParamPath:
    """Convert JAX's path into nested dictionaries and lists."""
    return tuple(key.key if hasattr(key, "key") else key.idx for key in keys)


def _renamed(name: str, renamed: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renamed:
        name = re.sub(pattern, replacement, name)
    return name


def _bare(name: str) -> str:
    """Return a name without the names of wrappers, and without the names of base models at its beginning."""
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    return ".".join(itertools.dropwhile(BASE_MODELS.__contains__, parts))


def _refuse_quantised(tensors: TensorReader, names: list[str], source: str) -> None:
    for name in names:
        dtype = tensors.dtype(name)
        if QUANTISED.fullmatch(name) or dtype.startswith(("F8_", "F6_", "F4", "I8", "U8")):
            raise CheckpointError(f"{source}: is quantised ({name}, stored as {dtype}); {UNQUANTISED}")
