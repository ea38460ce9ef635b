"""Answers of several samplers to the same prompts: generated now, or read from traces."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence

import numpy as np

from jaxtrace.compilation import counted
from jaxtrace.engine.samplers import Greedy
from jaxtrace.engine.settings import Settings
from jaxtrace.errors import StudyError
from jaxtrace.model import Model, in_order
from jaxtrace.run import encode_prompts, engine_settings
from jaxtrace.settings.probes import PROBE_OPTIONS
from jaxtrace.settings.run import EXECUTION_FIELDS, RunConfig, run_config
from jaxtrace.studies._shared.progress import OnCount
from jaxtrace.studies._shared.published import DUPLICATE_LAST_TOKEN
from jaxtrace.studies._shared.traces import single_runs
from jaxtrace.studies.samplers.settings import SamplersConfig
from jaxtrace.sweeping.cells import sampler_name
from jaxtrace.traces.reader import StoredTrace
from jaxtrace.traces.requirements import require_metrics
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

# Settings that leave the tokens alone.
NOT_SAMPLING = {*EXECUTION_FIELDS, *PROBE_OPTIONS, "seed", "probes", "precision"}
EQUAL_SETTINGS = ("max_new_tokens", "stop_repeats", "stop", "raw")  # settings that compared runs must share
REFUSED_SETTINGS = (DUPLICATE_LAST_TOKEN, "prompt_positions")  # settings that add steps which no sampler drew


@dataclasses.dataclass(frozen=True)
class SamplerRun:
    """A sampler's answers to all prompts, with one seed.

    Attributes:
      rows: one row per prompt, in the prompts' order.
      seconds: time of the run without compilation; NaN if unknown.
    """

    sampler: str
    seed: int
    rows: Sequence[Row]
    seconds: float


def run_samplers(
    model: Model, run: RunConfig, config: SamplersConfig, on_answers: OnCount = lambda *_: None
) -> list[SamplerRun]:
    """Run all samplers, the random ones with every seed; `on_answers` gets the numbers of answers given and in all.

    Raises:
      JaxtraceError: a setting or a prompt is wrong, or two samplers are the same.
    """
    settings = named_settings(model, run, config)
    encoded = encode_prompts(run, model)
    plan = [
        (name, dataclasses.replace(of_sampler, seed=seed))
        for name, of_sampler in settings.items()
        for seed in (config.seeds[:1] if isinstance(of_sampler.sampler, Greedy) else config.seeds)
    ]
    runs, answers = [], 0

    def on_progress(prompts_added: int, *_: float) -> None:
        nonlocal answers
        answers += prompts_added
        on_answers(answers, len(plan) * len(encoded))

    for name, of_run in plan:
        with counted() as compiled:
            start = time.perf_counter()
            rows = in_order(model.generate_rows(encoded, of_run, on_progress))
            seconds = time.perf_counter() - start - compiled.seconds
        runs.append(SamplerRun(name, of_run.seed, rows, seconds))
    return runs


def stored_runs(traces: Mapping[str, Trace]) -> dict[str, list[SamplerRun]]:
    """Return the runs of stored traces by model (at its revision), and task if it has several; greedy runs first.

    Raises:
      StudyError: a trace is of an unfinished run, holds other tokens than sampled ones, or lacks output probes; two
        runs are the same; or a model's runs have different prompts or lengths.
    """
    by_task: dict[tuple[str, str], list[tuple[RunConfig, Trace]]] = {}
    for where, trace in single_runs(traces).items():
        config, task = _config_of(where, trace)
        require_metrics({where: trace}, "entropy", "varentropy")
        model = config.model if config.revision is None else f"{config.model} at {config.revision}"
        by_task.setdefault((model, task), []).append((config, trace))
    models = [model for model, _ in by_task]
    by_label = {
        model if models.count(model) == 1 else f"{model}: {task}": runs for (model, task), runs in by_task.items()
    }
    return {label: _sampler_runs(label, runs) for label, runs in by_label.items()}


def _config_of(where: str, trace: Trace) -> tuple[RunConfig, str]:
    """Return the settings of a trace's run and the name of its task."""
    run = trace.runs[0] if isinstance(trace, StoredTrace) and trace.runs else None
    if run is None or run.config is None:
        raise StudyError(f"{where}: does not say how its tokens were drawn; give runs of `jaxtrace trace` or `sweep`")
    if not trace.info["complete"]:
        raise StudyError(f"{where}: is not finished; resume its run first (trace: --resume; sweep: the same command)")
    config = run_config(**run.config)
    if config.samples > 1:
        raise StudyError(f"{where}: has several samples of each prompt; give one run per seed")
    for name in ("score", *REFUSED_SETTINGS):
        if getattr(config, name):
            raise StudyError(f"{where}: made with {name}; this study compares sampled tokens, so trace without it")
    source = "given prompts" if config.prompts is None else config.prompts.stem
    return config, run.keys.get("task", config.task or source)


def _sampler_runs(label: str, runs: Sequence[tuple[RunConfig, Trace]]) -> list[SamplerRun]:
    names = sampler_names([config for config, _ in runs])
    sampler_runs = [
        SamplerRun(name, config.seed, trace.rows, np.nan) for name, (config, trace) in zip(names, runs, strict=True)
    ]
    if len({(run.sampler, run.seed) for run in sampler_runs}) < len(sampler_runs):
        raise StudyError(f"{label}: two of its runs have the same sampler and seed; give each once")
    if len({trace.info.get("prompts") for _, trace in runs}) > 1:
        raise StudyError(f"{label}: its samplers have answered different prompts; give runs of the same prompts")
    for name in EQUAL_SETTINGS:
        if len(values := {getattr(config, name) for config, _ in runs}) > 1:
            listed = ", ".join(map(str, sorted(values)))
            raise StudyError(f"{label}: its runs differ in {name} ({listed}); give runs with one value")
    return sorted(sampler_runs, key=lambda run: (run.sampler != "greedy", run.sampler, run.seed))


def named_settings(model: Model, run: RunConfig, config: SamplersConfig) -> dict[str, Settings]:
    """Return the engine's settings of each sampler, by the names of `sampler_names`.

    Raises:
      JaxtraceError: a setting is wrong, or two samplers are the same.
    """
    explicit = {name: value for name, value in dict(run).items() if name in run.model_fields_set}
    configs = [run_config(**{**explicit, **entry, "probes": ("output",)}) for entry in config.samplers]
    for name in REFUSED_SETTINGS:
        if any(getattr(of_sampler, name) for of_sampler in configs):
            raise StudyError(f"{name}: is true; this study compares sampled tokens, so drop it")
    named: dict[str, Settings] = {}
    for of_sampler, name in zip(configs, sampler_names(configs), strict=True):
        settings = dataclasses.replace(engine_settings(of_sampler, model.stop_tokens, model.tokenizer), seed=0)
        if settings in named.values():
            raise StudyError(f"samplers {', '.join(map(sampler_name, configs))}: two are the same; name each once")
        named[name] = settings
    return named


def sampler_names(configs: Sequence[RunConfig]) -> list[str]:
    """Return a name per run: a word for its sampler, and the settings that differ among runs with this word."""
    words = [sampler_name(config) for config in configs]
    fields = [config.model_dump(exclude_defaults=True, exclude=NOT_SAMPLING) for config in configs]
    names = []
    for word, settings in zip(words, fields, strict=True):
        same_word = [others for other, others in zip(words, fields, strict=True) if other == word]
        differing = [name for name, value in settings.items() if any(others.get(name) != value for others in same_word)]
        names.append(" ".join([word, *(f"{name}={settings[name]}" for name in differing)]))
    return names
