"""Settings of a sweep file."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from jaxtrace.settings.entries import Entry, entries
from jaxtrace.settings.run import RunConfig
from jaxtrace.settings.validation import StrictModel

SWEEP_DECIDES = ("out",)  # settings of a run that an entry may not have


class SweepConfig(StrictModel):
    """A matrix of runs. Unknown fields are refused.

    Every entry of an axis is a mapping of run settings (`RunConfig`), or an abbreviation of one: a model's name, a
    task's name, "greedy", a seed, a group of probes or a list of groups.
    """

    models: Annotated[tuple[Entry, ...], entries("model")] = Field(
        description="checkpoint directories, hub ids, published names, 'demo'"
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
        return self


AXES = ("models", "tasks", "samplers", "seeds", "probes")
NAMED = ("models", "tasks")
