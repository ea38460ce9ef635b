"""What a sweep file may say."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jaxtrace.run import RunConfig
from jaxtrace.settings.entries import Entry, entries

OWN = ("out",)  # settings of a run that a sweep decides


class SweepConfig(BaseModel):
    """A matrix of runs. Unknown fields are refused.

    Every entry of an axis is a mapping of settings of a run (`RunConfig`), or short for one: a model's name, a task's
    name, "greedy", a seed, a group of probes or a list of groups.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: Annotated[tuple[Entry, ...], entries("model")] = Field(
        description="checkpoint directories, hub ids, published names, 'demo'"
    )
    tasks: Annotated[tuple[Entry, ...], entries("task")] = Field(
        ({},), description="tasks; without any, the demo's own questions, or random prompts"
    )
    samplers: Annotated[tuple[Entry, ...], entries("sampler", {"sampler": "sample"})] = Field(
        ({},), description="'greedy', 'entropix', 'dslider', or settings of sampling such as {temperature: 0.7}"
    )
    seeds: Annotated[tuple[Entry, ...], entries("seed")] = ({},)
    probes: Annotated[tuple[Entry, ...], entries("probes")] = ({},)
    settings: dict[str, Any] = Field({}, description="of every run, where no axis says otherwise")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        axes = {axis: getattr(self, axis) for axis in AXES}
        known = set(RunConfig.model_fields) - {*OWN}
        for axis, listed in {**axes, "settings": (self.settings,)}.items():
            given = {name for entry in listed for name in entry}
            if unknown := given - known - ({"name"} if axis in NAMED else set()):
                raise ValueError(f"{axis}: no such setting as {min(unknown)!r}; there are: {', '.join(sorted(known))}")
            for other in AXES[: AXES.index(axis)] if axis in AXES else ():
                if both := given & {name for entry in axes[other] for name in entry} - {"name"}:
                    raise ValueError(f"{other} and {axis} both say {min(both)!r}; say it in one of them")
        if nameless := [entry for entry in self.models if "model" not in entry]:
            raise ValueError(f"models: an entry without a model ({nameless[0]}); name it with 'model'")
        return self


AXES = ("models", "tasks", "samplers", "seeds", "probes")
NAMED = ("models", "tasks")
