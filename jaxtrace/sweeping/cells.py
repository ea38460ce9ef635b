"""The cells of a sweep: one run each, and where in the dataset it goes."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtrace.errors import ConfigError
from jaxtrace.files import read_yaml
from jaxtrace.run import HOW, RunConfig, validated
from jaxtrace.sweeping.spec import Entry, SweepConfig
from jaxtrace.traces import partition_of

OWN_QUESTIONS = "own"


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
      config: of the run, without a directory.
      model, task, run: what it is called in the dataset; equal names of runs are equal settings.
    """

    config: RunConfig
    model: str
    task: str
    run: str

    @property
    def partition(self) -> str:
        """Its place in the dataset: "model=M/task=T/run=R"."""
        return partition_of(model=self.model, task=self.task, run=self.run)


def read_sweep(file: Path, mesh: str | None = None) -> list[Cell]:
    """The cells of a sweep file, those of one model together; equal ones once.

    Where nothing is random, seeds make no difference, and there is one cell for all of them.

    Args:
      file: YAML; see `SweepConfig`.
      mesh: in place of the file's.

    Raises:
      ConfigError: the file cannot be read, a field is unknown or out of range, or two entries share a name.
    """
    sweep = validated(SweepConfig, read_yaml(file), str(file))
    models, tasks = _named(sweep.models, _model_name, file), _named(sweep.tasks, _task_name, file)
    cells: dict[str, Cell] = {}
    for (model, own), (task, asked), *rest in itertools.product(
        models.items(), tasks.items(), sweep.samplers, sweep.seeds, sweep.probes
    ):
        settings: Entry = dict(sweep.settings)
        for entry in (own, asked, *rest):
            settings |= {name: value for name, value in entry.items() if name != "name"}
        if mesh is not None:
            settings["mesh"] = mesh
        config = validated(RunConfig, settings, f"{file}, {model} on {task}")
        if config.sampler == "greedy" and not config.random:
            config = config.model_copy(update={"seed": 0})
        cell = Cell(config, model, task, _run_name(config))
        cells[cell.partition] = cell
    return list(cells.values())


def _named(entries: Sequence[Entry], name_of: Any, file: Path) -> dict[str, Entry]:
    named: dict[str, Entry] = {}
    for entry in entries:
        name = str(entry.get("name") or name_of(entry))
        if name in named:
            raise ConfigError(f"{file}: two entries are called {name!r}; give one another 'name'")
        named[name] = entry
    return named


def _model_name(entry: Entry) -> str:
    model = str(entry["model"])
    return Path(model).resolve().name if Path(model).exists() else model


def _task_name(entry: Entry) -> str:
    if entry.get("prompts"):
        return Path(str(entry["prompts"])).stem
    return str(entry.get("task") or ("text" if entry.get("text") else OWN_QUESTIONS))


def _run_name(config: RunConfig) -> str:
    """What the run does, to be read, and a hash of all its settings that count, to tell it from every other."""
    content = config.model_dump(mode="json", exclude=HOW, exclude_defaults=True)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    seed = [f"seed{config.seed}"] * (config.sampler != "greedy" or config.random)
    return "-".join([drawing(config), *seed, ".".join(config.probes), digest])


def drawing(config: RunConfig) -> str:
    """How a run draws its tokens, in a word: "greedy", "t0.7-p0.9", "entropix-classic"."""
    if config.sampler != "sample":
        version = [config.thresholds] if config.sampler == "entropix" else []
        return "score" if config.score else "-".join([config.sampler, *version])
    cuts = {"p": config.top_p % 1, "k": config.top_k, "m": config.min_p}
    return "-".join([f"t{config.temperature:g}", *(f"{name}{cut:g}" for name, cut in cuts.items() if cut)])
