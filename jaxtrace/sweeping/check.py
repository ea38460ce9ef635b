"""Checks of a sweep before any cell runs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import huggingface_hub

from jaxtrace.checkpoints.huggingface import Checkpoint, read_shape
from jaxtrace.checkpoints.local import local_copy
from jaxtrace.checkpoints.random import RandomCheckpoint
from jaxtrace.errors import JaxtraceError
from jaxtrace.files import path_exists
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.published import find_published, looks_like_hub_id, published_shape
from jaxtrace.run import encode_prompts, hash_prompts, load_prompts, open_config_model
from jaxtrace.settings.prompt import PromptSettings
from jaxtrace.settings.run import CHOICE_FIELDS, DEMO, PROMPT_SOURCES, RunConfig
from jaxtrace.sweeping.cells import Cell
from jaxtrace.tasks.registry import TASKS
from jaxtrace.tasks.selection import check_sample

# Settings of the prompts.
PROMPT_FIELDS = {*PROMPT_SOURCES, *CHOICE_FIELDS, "data", "image", "seed", "samples", "shots", "score"}
PROMPT_FIELDS |= {*PromptSettings.model_fields}


@dataclass(frozen=True)
class CheckedCell:
    """A cell and what is known about its run beforehand.

    Attributes:
      config: decoder; None if it is unknown here.
      prompts: number of prompts; None if it is unknown here.
      prompt_tokens: number of tokens of all prompts; None if they could not be encoded.
      prompt_hash: SHA-256 of these tokens; "" if they could not be encoded.
      unchecked: descriptions of what could not be checked here.
    """

    cell: Cell
    config: DecoderConfig | None
    prompts: int | None
    prompt_tokens: int | None = None
    prompt_hash: str = ""
    unchecked: tuple[str, ...] = ()


def check(
    cells: Sequence[Cell],
    *,
    offline: bool,
    date: datetime | None = None,
    on_cell: Callable[[Cell], None] = lambda _: None,
) -> list[CheckedCell]:
    """Open every model and encode every prompt of a sweep, without reading weights.

    Args:
      offline: do not use the hub; models and data that are not here then stay unchecked.
      date: current time for chat templates; None for now.
      on_cell: called with each cell before its check.

    Raises:
      JaxtraceError: a model is missing or unsupported, data cannot be read, or a prompt does not fit; the message
        names the cell.
    """
    opened: dict[Any, Checkpoint | RandomCheckpoint | None] = {}
    by_settings: dict[Any, CheckedCell] = {}  # cells of equal model and prompts are checked once
    checked = []
    for cell in cells:
        on_cell(cell)
        model = model_key(cell.config)
        settings = (model, cell.config.model_dump_json(include=PROMPT_FIELDS))
        try:
            if model not in opened:
                opened[model] = None if offline and _from_hub(cell.config) else open_config_model(cell.config)
            if settings not in by_settings:
                by_settings[settings] = _checked(cell, opened[model], offline, date)
            if (config := by_settings[settings].config) is not None:
                cell.config.recorded.check(config)
        except JaxtraceError as error:
            raise type(error)(f"{cell.model_name} on {cell.task}: {error}") from error
        checked.append(dataclasses.replace(by_settings[settings], cell=cell))
    return checked


def model_key(config: RunConfig) -> tuple[Any, ...]:
    """Return the settings that a run's weights depend on; runs with equal ones share a loaded model."""
    seed = config.seed if config.random else None
    return config.model, config.revision, config.ignore_config, config.random, seed, config.dtype, config.mesh


def _checked(
    cell: Cell, checkpoint: Checkpoint | RandomCheckpoint | None, offline: bool, date: datetime | None
) -> CheckedCell:
    config, unchecked = cell.config, []
    if checkpoint is None:
        unchecked.append("the model (not here)")
    task = TASKS.find(config.task or "")
    if offline and task is not None and config.data is None and config.task != "prompts":
        unchecked.append("the task's data (not here)" if task.size else "the task's data (not here) and their number")
        if task.size and config.sample:
            check_sample(config.sample, task.size)
        limit = min((n for n in (task.size, config.limit, config.sample) if n is not None), default=None)
        prompts = None if limit is None else limit * config.samples
        shape = _shape(config.model, config.revision, config.ignore_config) if checkpoint is None else checkpoint.config
        return CheckedCell(cell, shape, prompts, unchecked=tuple(unchecked))
    if checkpoint is None:
        return CheckedCell(
            cell,
            _shape(config.model, config.revision, config.ignore_config),
            len(load_prompts(config)),
            unchecked=tuple(unchecked),
        )
    encoded = encode_prompts(config, checkpoint, date)
    prompt_tokens = sum(len(tokens) for _, tokens in encoded)
    return CheckedCell(cell, checkpoint.config, len(encoded), prompt_tokens, hash_prompts(encoded))


def _from_hub(config: RunConfig) -> bool:
    """Return whether the run's model comes from the hub."""
    if config.random or config.model == DEMO or path_exists(config.model):
        return False
    published = None if "/" in config.model else find_published(config.model)
    if published is None:
        return looks_like_hub_id(config.model)
    return config.revision is not None or local_copy(published) is None


@functools.cache
def _shape(name: str, revision: str | None, ignore_config: tuple[str, ...]) -> DecoderConfig | None:
    """Return the decoder of a model on the hub: from its cached config, or else from the published shapes."""
    published = find_published(name)
    hub_id = name if published is None else published.hub_id
    cached = huggingface_hub.try_to_load_from_cache(hub_id, "config.json", revision=revision)
    return read_shape(Path(cached).parent, name, ignore_config) if isinstance(cached, str) else published_shape(name)
