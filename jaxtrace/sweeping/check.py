"""Finding out what is wrong with a sweep before any of it runs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub

from jaxtrace.checkpoints.huggingface import Checkpoint, looks_like_hub_id, read_config
from jaxtrace.checkpoints.random import RandomCheckpoint
from jaxtrace.errors import JaxtraceError
from jaxtrace.model import DEMO
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.published import find_published, published_shape
from jaxtrace.run import SOURCES, RunConfig, encode_prompts, hash_prompts, open_config_model
from jaxtrace.sweeping.cells import Cell
from jaxtrace.tasks import known_tasks

PROMPTS = (*SOURCES, "data", "image", "limit", "samples", "raw", "score")  # the settings that choose and encode prompts


@dataclass(frozen=True)
class Checked:
    """What is known of a cell before it runs.

    Attributes:
      cell: the cell.
      config: of its decoder; None where that is not known here.
      prompts: how many; None where that is not known here.
      fed: tokens of all of them; None where they could not be encoded.
      hashed: SHA-256 of those tokens, "" where they could not be encoded.
      unchecked: what could not be checked here, in words.
    """

    cell: Cell
    config: DecoderConfig | None
    prompts: int | None
    fed: int | None = None
    hashed: str = ""
    unchecked: tuple[str, ...] = ()


def check(cells: Sequence[Cell], *, offline: bool, on_cell: Callable[[Cell], None] = lambda _: None) -> list[Checked]:
    """Opens every model and encodes every prompt of a sweep; no weights are read.

    Args:
      cells: of the sweep.
      offline: leave the hub alone; models and data that are not here are then not checked, and say so.
      on_cell: called with each cell before it is checked.

    Raises:
      JaxtraceError: a model is missing or not understood, data cannot be read, or a prompt cannot be fed; the message
        names the cell.
    """
    opened: dict[Any, Checkpoint | RandomCheckpoint | None] = {}
    found: dict[Any, Checked] = {}
    checked = []
    for cell in cells:
        on_cell(cell)
        model = model_key(cell.config)
        what = (model, *(getattr(cell.config, name) for name in PROMPTS))
        try:
            if model not in opened:
                opened[model] = None if offline and _elsewhere(cell.config) else open_config_model(cell.config)
            if what not in found:
                found[what] = _checked(cell, opened[model], offline)
            if (config := found[what].config) is not None:
                cell.config.recorded.check(config)
        except JaxtraceError as error:
            raise type(error)(f"{cell.model} on {cell.task}: {error}") from error
        checked.append(dataclasses.replace(found[what], cell=cell))
    return checked


def model_key(config: RunConfig) -> tuple[Any, ...]:
    """What the weights of a run depend on: runs with equal ones share a loaded model."""
    return config.model, config.random, config.seed if config.random else None, config.mesh


def _checked(cell: Cell, checkpoint: Checkpoint | RandomCheckpoint | None, offline: bool) -> Checked:
    config, unchecked = cell.config, []
    if checkpoint is None:
        unchecked.append("the model, which is not here")
    task = known_tasks().get(config.task or "")
    if offline and task is not None and config.data is None and config.task != "prompts":
        unchecked.append("the task's data, which are not here" if task.size else "the task's data and their number")
        least = min((n for n in (task.size, config.limit) if n is not None), default=None)
        prompts = None if least is None else least * config.samples
        shape = _shape(config.model) if checkpoint is None else checkpoint.config
        return Checked(cell, shape, prompts, unchecked=tuple(unchecked))
    if checkpoint is None:
        return Checked(cell, _shape(config.model), len(config.load_prompts()), unchecked=tuple(unchecked))
    encoded = encode_prompts(config, checkpoint)
    fed = sum(len(tokens) for _, tokens in encoded)
    return Checked(cell, checkpoint.config, len(encoded), fed, hash_prompts(encoded))


def _elsewhere(config: RunConfig) -> bool:
    """Whether its model is to come from the hub."""
    if config.random or config.model == DEMO or Path(config.model).exists():
        return False
    return find_published(config.model) is not None or looks_like_hub_id(config.model)


@functools.cache
def _shape(name: str) -> DecoderConfig | None:
    """The decoder of a model on the hub: by its config if that is in the hub's cache, or as it was published."""
    published = find_published(name)
    cached = huggingface_hub.try_to_load_from_cache(name if published is None else published.hub_id, "config.json")
    return read_config(Path(cached).parent, name)[1] if isinstance(cached, str) else published_shape(name)
