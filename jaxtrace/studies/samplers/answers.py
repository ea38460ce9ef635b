"""Answers that samplers drew to the same prompts: run now, or read from traces."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxtrace.compilation import counted
from jaxtrace.engine.samplers import Greedy
from jaxtrace.engine.settings import Settings
from jaxtrace.errors import StudyError
from jaxtrace.model import Model
from jaxtrace.run import HOW, OPTIONS, RunConfig, run_config
from jaxtrace.studies._shared.traces import require
from jaxtrace.studies.lens.profiles import single_runs
from jaxtrace.studies.samplers.settings import SamplersConfig
from jaxtrace.sweeping.cells import drawing
from jaxtrace.traces.reader import StoredTrace
from jaxtrace.traces.trace import Row, Trace

NOT_OF_DRAWING = {*HOW, *OPTIONS, "seed", "probes", "precision"}
ALIKE = ("max_new_tokens", "stop_repeats", "raw")  # settings that runs which are compared share
NOT_DRAWN = ("compat_duplicate_last_prompt_token", "prompt_positions")


@dataclasses.dataclass(frozen=True)
class Sampled:
    """A sampler's answers to all prompts, with one seed.

    Attributes:
      sampler: its name.
      seed: of its draws.
      rows: one for each prompt, in their order.
      seconds: that they took, compilation left out; NaN where that is not known.
    """

    sampler: str
    seed: int
    rows: Sequence[Row]
    seconds: float


def run_samplers(
    model: Model, run: RunConfig, config: SamplersConfig, on_run: Callable[[int, int], None] = lambda *_: None
) -> list[Sampled]:
    """Runs all samplers, with every seed where they draw at random.

    Args:
      model: the model.
      run: its prompts and settings.
      config: of the study.
      on_run: told how many runs are done, and how many there are.

    Raises:
      JaxtraceError: a setting or a prompt is wrong, or two samplers are the same.
    """
    settings = named_settings(model, run, config)
    encoded = model.encode(run.load_prompts(), chat=not run.raw)
    plan = [
        (name, dataclasses.replace(one, seed=seed))
        for name, one in settings.items()
        for seed in (config.seeds[:1] if isinstance(one.sampler, Greedy) else config.seeds)
    ]
    found = []
    for name, one in plan:
        with counted() as compiled:
            began = time.perf_counter()
            rows = [row for batch in model.generate_rows(encoded, one) for _, row in batch]
            seconds = time.perf_counter() - began - compiled.seconds
        found.append(Sampled(name, one.seed, rows, seconds))
        on_run(len(found), len(plan))
    return found


def runs_of(traces: Mapping[str, Trace]) -> dict[str, list[Sampled]]:
    """The runs of stored traces, such as a sweep's, by model (and task, where one has several); greedy ones first.

    Raises:
      StudyError: a trace is not of a run that was finished, or not of drawn tokens alone, or lacks the output's probes;
        two are the same, or runs of a model are of different prompts or lengths.
    """
    by_task: dict[tuple[str, str], list[tuple[RunConfig, Trace]]] = {}
    for where, trace in single_runs(traces).items():
        config, task = _config_of(where, trace)
        require({where: trace}, "entropy", "varentropy")
        by_task.setdefault((config.model, task), []).append((config, trace))
    models = [model for model, _ in by_task]
    by_label = {
        model if models.count(model) == 1 else f"{model}: {task}": some for (model, task), some in by_task.items()
    }
    return {label: _sampled(label, some) for label, some in by_label.items()}


def _config_of(where: str, trace: Trace) -> tuple[RunConfig, str]:
    """How a run was made, and the name of its task."""
    run = trace.runs[0] if isinstance(trace, StoredTrace) and trace.runs else None
    if run is None or run.config is None:
        raise StudyError(f"{where}: does not say how its tokens were drawn; give runs of `jaxtrace trace` or `sweep`")
    if not trace.info["complete"]:
        raise StudyError(
            f"{where}: is not finished; go on with its run first (trace: --resume; sweep: the same command)"
        )
    config = run_config(**run.config)
    if config.samples > 1:
        raise StudyError(f"{where}: has several samples of each prompt; give a run of one for each of several seeds")
    for name in ("score", *NOT_DRAWN):
        if getattr(config, name):
            raise StudyError(f"{where}: made with {name}; this study is of the tokens that samplers draw")
    own = "given prompts" if config.prompts is None else config.prompts.stem
    return config, run.keys.get("task", config.task or own)


def _sampled(label: str, runs: Sequence[tuple[RunConfig, Trace]]) -> list[Sampled]:
    names = names_of([config for config, _ in runs])
    found = [Sampled(name, run[0].seed, run[1].rows, np.nan) for name, run in zip(names, runs, strict=True)]
    if len({(one.sampler, one.seed) for one in found}) < len(found):
        raise StudyError(f"{label}: two of its runs have the same sampler and seed; give each once")
    if len({trace.info.get("prompts") for _, trace in runs}) > 1:
        raise StudyError(f"{label}: its samplers have answered different prompts; give runs of the same")
    for name in ALIKE:
        if len(values := {getattr(config, name) for config, _ in runs}) > 1:
            raise StudyError(
                f"{label}: its runs differ in {name} ({', '.join(map(str, sorted(values)))}); give alike ones"
            )
    return sorted(found, key=lambda one: (one.sampler != "greedy", one.sampler, one.seed))


def named_settings(model: Model, run: RunConfig, config: SamplersConfig) -> dict[str, Settings]:
    """Settings of each sampler, by how it draws: in a word, and by the fields that tell it from others of that word.

    Raises:
      JaxtraceError: a setting is wrong, or two samplers are the same.
    """
    given = {name: value for name, value in dict(run).items() if name in run.model_fields_set}
    configs = [run_config(**{**given, **entry, "probes": ("output",)}) for entry in config.samplers]
    for name in NOT_DRAWN:
        if any(getattr(one, name) for one in configs):
            raise StudyError(f"{name}: this study is of the tokens that samplers draw; leave it out")
    found: dict[str, Settings] = {}
    for one, name in zip(configs, names_of(configs), strict=True):
        settings = dataclasses.replace(one.settings(model.stop_tokens, model.tokenizer), seed=0)
        if settings in found.values():
            raise StudyError(f"samplers {', '.join(map(drawing, configs))}: two are the same; name each once")
        found[name] = settings
    return found


def names_of(configs: Sequence[RunConfig]) -> list[str]:
    """How each draws: in a word, and by the settings of drawing that tell it from others of that word."""
    words = [drawing(one) for one in configs]
    fields = [one.model_dump(exclude_defaults=True, exclude=NOT_OF_DRAWING) for one in configs]
    names = []
    for word, own in zip(words, fields, strict=True):
        alike = [others for other, others in zip(words, fields, strict=True) if other == word]
        differing = [name for name, value in own.items() if any(others.get(name) != value for others in alike)]
        names.append(" ".join([word, *(f"{name}={own[name]}" for name in differing)]))
    return names
