"""Settings of a run: what YAML files, `jaxtrace.run` and `jaxtrace trace` accept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from jaxtrace.documents import read_yaml
from jaxtrace.errors import ConfigError, shown
from jaxtrace.settings.groups import DEVICES, MODEL, OUTPUT, PROMPT, READABLE
from jaxtrace.settings.mesh import mesh_sizes
from jaxtrace.settings.numbers import Count, Natural
from jaxtrace.settings.probes import PROBE_OPTIONS, Probes, RecordSettings
from jaxtrace.settings.prompt import PromptSettings
from jaxtrace.settings.sampling import BUILT_IN_SAMPLERS, DecodingSettings, SamplerSettings, SamplingSettings
from jaxtrace.settings.validation import ONE_OR_MORE, check_unicode, origin, validated

DEMO = "demo"  # the model that comes with jaxtrace
AUTO = "auto"  # the mesh that is chosen for a model
Dtype = Literal["float32", "bfloat16", "float16"]  # of parameters and caches
DTYPES = get_args(Dtype)
MOST_SAMPLES = 100_000  # answers to one prompt

PROMPT_SOURCES = ("task", "prompts", "text")
CHOICE_FIELDS = ("limit", "sample", "stratify")  # choose prompts of a source
SAMPLING_FIELDS = tuple(SamplingSettings.model_fields)
EXECUTION_FIELDS = {"out", "mesh", "batch_size"}  # change how and where a run executes, not its results


def _read_mesh(mesh: Any) -> Any:
    """Return the text of a mesh after a check of its sizes; None for "none"."""
    if isinstance(mesh, str) and mesh not in (AUTO, "none"):
        try:
            mesh_sizes(mesh)
        except ConfigError as error:
            raise ValueError(str(error).partition(": ")[2]) from None
    return None if mesh == "none" else mesh


class RunConfig(DecodingSettings, SamplingSettings, SamplerSettings, PromptSettings, RecordSettings):
    """Every setting of a run. Unknown fields are refused.

    The command line's options are made from the fields. `json_schema_extra` holds what a field's name does not tell:
    "group" is the option's group in `--help`; "positional" the placeholder of a positional argument; "option" another
    name for the option; "exists" advice for a path that must exist.
    """

    model: str = Field(
        default=DEMO,
        description="Checkpoint directory, GGUF file, hub id, name that `jaxtrace models` lists, or 'demo'.",
        json_schema_extra=MODEL | {"positional": "MODEL"},
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        description="Branch, tag or commit of a hub id. Default: the main branch.",
        json_schema_extra=MODEL,
    )
    random: bool = Field(
        default=False,
        description="Random weights of the model's shape, and random prompts if none are given.",
        json_schema_extra=MODEL,
    )
    dtype: Dtype | None = Field(
        default=None,
        description="Dtype of parameters and caches. Default: bfloat16, float32 on CPUs.",
        json_schema_extra=MODEL,
    )
    lens: Path | None = Field(
        default=None,
        description="Directory of a tuned lens of the model. Default: the logit lens.",
        json_schema_extra=MODEL | {"exists": "name a directory that `jaxtrace tuned-lens` wrote"},
    )
    ignore_config: Annotated[tuple[str, ...], ONE_OR_MORE] = Field(
        default=(),
        description="An attribute of config.json to treat as absent; repeat the option for several.",
        json_schema_extra=MODEL,
    )
    task: str | None = Field(default=None, description="Task to take prompts from, by name.", json_schema_extra=PROMPT)
    data: Path | None = Field(
        default=None,
        description="Data file of the task. Default: the hub's copy.",
        json_schema_extra=PROMPT | READABLE,
    )
    prompts: Path | None = Field(
        default=None, description="File of prompts: .txt, .jsonl or .csv.", json_schema_extra=PROMPT | READABLE
    )
    text: Annotated[tuple[str, ...], ONE_OR_MORE] = Field(
        default=(), description="A prompt; repeat the option for several.", json_schema_extra=PROMPT
    )
    image: Annotated[tuple[Path, ...], ONE_OR_MORE] = Field(
        default=(),
        description="An image for each text, for a model with an image encoder; repeat the option for several.",
        json_schema_extra=PROMPT | READABLE,
    )
    limit: Count | None = Field(
        default=None, description="Trace at most this many prompts, the first ones.", json_schema_extra=PROMPT
    )
    sample: Count | None = Field(
        default=None,
        description="Trace this many prompts, drawn at random by --seed; they keep their ids.",
        json_schema_extra=PROMPT,
    )
    stratify: str | None = Field(
        default=None,
        min_length=1,
        description="Key of the prompts' metadata, such as subject: each of its values gets its share of --sample, and "
        "at least one prompt.",
        json_schema_extra=PROMPT,
    )
    samples: Count = Field(
        default=1,
        le=MOST_SAMPLES,
        description="Number of answers drawn for each prompt, independently.",
        json_schema_extra=PROMPT,
    )
    shots: Natural = Field(
        default=0,
        description="Number of solved examples before each prompt, from the task's training split.",
        json_schema_extra=PROMPT,
    )
    score: bool = Field(
        default=False, description="Trace the texts themselves instead of continuing them.", json_schema_extra=PROMPT
    )
    compat_duplicate_last_prompt_token: bool = Field(
        default=False,
        description="Feed the prompt's last token twice, as Algorithm 1 of arXiv 2604.03589 does.",
        json_schema_extra=PROMPT,
    )
    out: str | Path | None = Field(
        default=None, description="Directory or URL of the trace. Default: runs/MODEL-TIME.", json_schema_extra=OUTPUT
    )
    mesh: Annotated[str | None, BeforeValidator(_read_mesh)] = Field(
        default=AUTO,
        description="Devices: model splits the parameters, data splits the batch, as in data=1,model=8; 'none' uses "
        "one device.",
        json_schema_extra=DEVICES,
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        sources = self.prompt_sources
        if len(sources) > 1:
            raise ValueError(f"{' and '.join(sources)} exclude each other; keep one")
        if not sources and not self.random and self.model != DEMO:
            raise ValueError("nothing to trace; give a task, a prompts file, or a text")
        if self.image and len(self.image) != len(self.text):
            raise ValueError(f"{len(self.image)} images for {len(self.text)} texts; give one image for each text")
        if self.data and not self.task:
            raise ValueError(f"data is {self.data} without a task; name the task too")
        if self.limit is not None and self.sample is not None:
            raise ValueError("limit and sample exclude each other; keep one")
        if self.stratify is not None and self.sample is None:
            raise ValueError(f"stratify is {shown(self.stratify)!r} without a sample; give sample too")
        if self.shots and not self.task:
            raise ValueError(f"shots is {self.shots} without a task; name a task with a training split, such as gsm8k")
        changed = [name for name in SAMPLING_FIELDS if getattr(self, name) != type(self).model_fields[name].default]
        if self.sampler != "sample" and changed:
            raise ValueError(
                f"{changed[0]} is {getattr(self, changed[0])} with sampler {self.sampler!r}; use sampler 'sample'"
            )
        if self.sampler != "entropix" and self.thresholds != "classic":
            raise ValueError(f"thresholds is {self.thresholds!r} with sampler {self.sampler!r}; use sampler 'entropix'")
        if self.sampler not in ("entropix", "dslider") and self.pause is not None:
            raise ValueError(
                f"pause is {self.pause!r} with sampler {self.sampler!r}; use sampler 'entropix' or 'dslider'"
            )
        if self.sampler in BUILT_IN_SAMPLERS and self.sampler_arg:
            raise ValueError(f"sampler_arg with sampler {self.sampler!r}, which takes none; drop it")
        if self.score and (self.sampler != "greedy" or self.stop_repeats or self.stop):
            raise ValueError("score draws no tokens; drop sampler, stop and stop_repeats")
        if self.score and self.prompt_positions:
            raise ValueError("score records every position; drop prompt_positions")
        if self.score and self.shots:
            raise ValueError("score feeds texts unchanged; drop shots")
        if self.score and self.compat_duplicate_last_prompt_token:
            raise ValueError("score feeds texts unchanged; drop compat_duplicate_last_prompt_token")
        if self.score and (unused := [*self.template_settings, *["prefix"] * bool(self.prefix)]):
            raise ValueError(f"score feeds texts unchanged; drop {unused[0]}")
        if self.score and self.chat == "always":
            raise ValueError("score feeds texts without the chat template; drop chat 'always'")
        if self.samples > 1 and self.sampler == "greedy":
            raise ValueError(
                f"samples is {self.samples}, and the greedy sampler draws equal ones; use sampler 'sample', 'entropix' "
                "or 'dslider'"
            )
        try:
            _ = self.recorded
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def prompt_sources(self) -> list[str]:
        """Names of the fields that give prompts."""
        return [name for name in PROMPT_SOURCES if getattr(self, name)]

    @property
    def recorded(self) -> Probes:
        """Metrics and raw material to record."""
        return Probes.of(*self.probes, **{name: getattr(self, name) for name in PROBE_OPTIONS})

    def directory(self) -> str | Path:
        """Return the directory or URL of the trace; without `out`, one named after the model and the time."""
        return self.out or Path("runs") / f"{Path(self.model).name}-{datetime.now():%Y%m%d-%H%M%S}"


def run_config(file: Path | None = None, **overrides: Any) -> RunConfig:
    """Return the settings of a run from a YAML file and fields that override it.

    A source of prompts in `overrides` replaces the file's source, another sampler drops the file's sampling fields, and
    a limit and a sample replace each other.

    Args:
      file: YAML mapping of fields of `RunConfig`; None for defaults.
      overrides: fields of `RunConfig`.

    Raises:
      ConfigError: the file is unreadable, or a field is unknown or out of range; one line names it.
    """
    check_unicode(overrides, "settings")
    fields = overridden({} if file is None else read_yaml(file), overrides)
    return validated(RunConfig, fields, origin(file, overrides))


def overridden(fields: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a run with those that override them, and without those that the latter exclude."""
    replaced: set[str] = set()
    if any(overrides.get(source) for source in PROMPT_SOURCES):
        replaced |= {*PROMPT_SOURCES, "data", "image"} | ({"shots"} if not overrides.get("task") else set())
    if overrides.get("sampler", "sample") != "sample":
        replaced |= {*SAMPLING_FIELDS}
    if overrides.get("sample"):
        replaced |= {"limit"}
    if overrides.get("limit"):
        replaced |= {"sample", "stratify"}
    return {name: value for name, value in fields.items() if name not in replaced} | dict(overrides)
