"""Settings of a sweep file, and its cells: one run each, and its partition of the dataset."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from jaxtrace.documents import read_yaml
from jaxtrace.errors import ConfigError
from jaxtrace.files import path_exists
from jaxtrace.settings.entries import Entry, entries
from jaxtrace.settings.run import EXECUTION_FIELDS, RunConfig
from jaxtrace.settings.validation import StrictModel, validated
from jaxtrace.traces import partition_of

OWN_QUESTIONS = "own"
SWEEP_DECIDES = ("out",)  # settings of a run that an entry may not have


class SweepConfig(StrictModel):
    """A matrix of runs. Unknown fields are refused.

    Every entry of an axis is a mapping of run settings (`RunConfig`), or an abbreviation of one: a model's name, a
    task's name, "greedy", a seed, a group of probes or a list of groups.
    """

    models: Annotated[tuple[Entry, ...], entries("model")] = Field(
        description="checkpoint directories, hub ids, published names, 'demo'"
    )
    revisions: Annotated[tuple[Entry, ...], entries("revision")] = Field(
        ({},), description="branches, tags or commits of the models' hub ids, such as the steps of a training"
    )
    tasks: Annotated[tuple[Entry, ...], entries("task")] = Field(
        ({},), description="tasks; by default the demo's questions, or random prompts"
    )
    samplers: Annotated[tuple[Entry, ...], entries("sampler", {"sampler": "sample"})] = Field(
        ({},), description="'greedy', 'entropix', 'dslider', or settings of sampling such as {temperature: 0.7}"
    )
    seeds: Annotated[tuple[Entry, ...], entries("seed")] = ({},)
    probes: Annotated[tuple[Entry, ...], entries("probes")] = ({},)
    settings: dict[str, Any] = Field({}, description="settings of every run, unless an axis sets them")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        axes = {axis: getattr(self, axis) for axis in AXES}
        known = set(RunConfig.model_fields) - {*SWEEP_DECIDES}
        for axis, listed in {**axes, "settings": (self.settings,)}.items():
            given = {name for entry in listed for name in entry}
            if unknown := given - known - ({"name"} if axis in NAMED else set()):
                raise ValueError(f"{axis}: has no setting {min(unknown)!r}; choose from {', '.join(sorted(known))}")
            for other in AXES[: AXES.index(axis)] if axis in AXES else ():
                if both := given & {name for entry in axes[other] for name in entry} - {"name"}:
                    raise ValueError(f"{other} and {axis} both set {min(both)!r}; set it in one of them")
        if nameless := [entry for entry in self.models if "model" not in entry]:
            raise ValueError(f"models: the entry {nameless[0]} names no model; add 'model'")
        if self.revisions != ({},):
            for entry in self.revisions:
                if not entry.get("revision"):
                    raise ValueError(f"revisions: the entry {entry} names no revision; add one, such as 'main'")
        return self


AXES = ("models", "revisions", "tasks", "samplers", "seeds", "probes")
NAMED = ("models", "tasks")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
      config: settings of the run, without a directory.
      model, task, run: names in the dataset; equal names of runs mean equal settings.
      revision: entry of the axis `revisions`; None without this axis.
    """

    config: RunConfig
    model: str
    task: str
    run: str
    revision: str | None = None

    @property
    def partition(self) -> str:
        """Partition of the dataset: "model=M/task=T/run=R", or "model=M/revision=V/task=T/run=R"."""
        revision = {} if self.revision is None else {"revision": self.revision}
        return partition_of(model=self.model, **revision, task=self.task, run=self.run)

    @property
    def model_name(self) -> str:
        """Name of the model with its revision, if that is an axis: "M at V"."""
        return self.model if self.revision is None else f"{self.model} at {self.revision}"


def read_sweep(file: Path, mesh: str | None = None) -> list[Cell]:
    """Return the distinct cells of a sweep file, ordered by model and revision.

    Runs without randomness do not depend on the seed and have one cell for all seeds.

    Args:
      file: YAML file; see `SweepConfig`.
      mesh: mesh that replaces the file's; None to keep it.

    Raises:
      ConfigError: the file cannot be read, a field is unknown or out of range, or two entries share a name.
    """
    sweep = validated(SweepConfig, read_yaml(file), str(file))
    models, tasks = _named(sweep.models, _model_name, file), _named(sweep.tasks, _task_name, file)
    cells: dict[str, Cell] = {}
    for (model, model_entry), revision_entry, (task, task_entry), *other_entries in itertools.product(
        models.items(), sweep.revisions, tasks.items(), sweep.samplers, sweep.seeds, sweep.probes
    ):
        settings: Entry = dict(sweep.settings)
        for entry in (model_entry, revision_entry, task_entry, *other_entries):
            settings |= {name: value for name, value in entry.items() if name != "name"}
        if mesh is not None:
            settings["mesh"] = mesh
        config = validated(RunConfig, settings, f"{file}, {model} on {task}")
        if not _random(config):
            config = config.model_copy(update={"seed": 0})
        cell = Cell(config, model, task, _run_name(config), config.revision if revision_entry else None)
        cells[cell.partition] = cell
    return list(cells.values())


def _named(entries: Sequence[Entry], name_of: Any, file: Path) -> dict[str, Entry]:
    named: dict[str, Entry] = {}
    for entry in entries:
        name = str(entry.get("name") or name_of(entry))
        if name in named:
            raise ConfigError(f"{file}: two entries are named {name!r}; give one of them another 'name'")
        named[name] = entry
    return named


def _model_name(entry: Entry) -> str:
    model = str(entry["model"])
    return Path(model).resolve().name if path_exists(model) else model


def _task_name(entry: Entry) -> str:
    if entry.get("prompts"):
        return Path(str(entry["prompts"])).stem
    return str(entry.get("task") or ("text" if entry.get("text") else OWN_QUESTIONS))


def _run_name(config: RunConfig) -> str:
    """Return a readable name of the run's settings, and a hash of all settings that change its rows."""
    content = config.model_dump(mode="json", exclude=EXECUTION_FIELDS, exclude_defaults=True)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    seed = [f"seed{config.seed}"] * _random(config)
    return "-".join([sampler_name(config), *seed, ".".join(config.probes), digest])


def _random(config: RunConfig) -> bool:
    """Return whether the run's prompts or rows depend on its seed."""
    return config.sampler != "greedy" or config.random or config.sample is not None


def sampler_name(config: RunConfig) -> str:
    """Return a short name of a run's sampler: "greedy", "t0.7-p0.9", "entropix-classic"."""
    if config.sampler != "sample":
        version = [config.thresholds] if config.sampler == "entropix" else []
        return "score" if config.score else "-".join([config.sampler, *version])
    cuts = {"p": config.top_p % 1, "k": config.top_k, "m": config.min_p}
    return "-".join([f"t{config.temperature:g}", *(f"{name}{cut:g}" for name, cut in cuts.items() if cut)])
