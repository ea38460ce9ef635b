"""`jaxtrace study NAME`: one verb for each registered study."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from jaxtrace.cli.checks import check_run
from jaxtrace.cli.existing import ResumeOptions
from jaxtrace.cli.options import Arguments, Command
from jaxtrace.cli.output import console, say
from jaxtrace.cli.signals import NOTHING_WRITTEN, incomplete, on_interrupt
from jaxtrace.documents import read_yaml
from jaxtrace.errors import ConfigError
from jaxtrace.outputs import claim_directory
from jaxtrace.settings.groups import OUTPUT
from jaxtrace.settings.run import RunConfig, overridden, run_config
from jaxtrace.settings.validation import StrictModel, check_unicode, origin, validated
from jaxtrace.studies._shared.settings import FILES, PAGE, StudyConfig
from jaxtrace.studies.registry import Study

T = TypeVar("T", bound=StudyConfig)


class StudyOptions(StrictModel):
    """Options of every study besides its settings."""

    config: Path | None = Field(None, description="YAML file of the study's settings; options override it.")
    out: Path | None = Field(
        None,
        description="Directory of the result: tables, pictures, study.html. Default: studies/NAME.",
        json_schema_extra=OUTPUT,
    )


def run_study(study: Study, arguments: Arguments) -> None:
    """Execute a study, write its result, and print its tables and notes."""
    options = arguments.settings(StudyOptions)
    settings = study_settings(
        study.settings, options.config, arguments.fields(study.settings), arguments.fields(RunConfig)
    )
    for model in settings.models:
        check_run(run_config(**{**settings.run, "model": model}))
    out, existing = options.out or Path("studies") / study.name, arguments.settings(ResumeOptions)
    resumable = f"finished work is kept in {out}; run the same command again to resume"
    on_interrupt(lambda: resumable if settings.models else NOTHING_WRITTEN)
    from jaxtrace.lock import WriteLock

    with WriteLock(out, nested=True):
        claim_directory(out, PAGE, FILES, overwrite=existing.overwrite, resume=existing.resume)
        from jaxtrace.cli.progress import Bars
        from jaxtrace.compilation import counted
        from jaxtrace.studies._shared.page import terminal_table, write_study
        from jaxtrace.studies._shared.traces import discard_runs

        if existing.overwrite:
            discard_runs(settings, out)
        with counted() as compiled:
            result = study.execute(settings, out, Bars(compiled))
        on_interrupt(lambda: incomplete(out))
        page = write_study(result, out)
        on_interrupt(lambda: f"{out} is complete")
    for file in result.files:
        say(file)
    for name, table in result.tables.items():
        console.print(terminal_table(name, table, console.width))
    for note in result.notes:
        console.print(note)
    say(page)


def study_settings(kind: type[T], file: Path | None, options: Mapping[str, Any], run: Mapping[str, Any]) -> T:
    """Return a study's settings from a YAML file and options that override it.

    Args:
      kind: class of the settings.
      file: YAML mapping of its fields; None for defaults.
      options: fields of `kind` given as options; traces replace the file's models, and models its traces.
      run: fields of `RunConfig` given as options; they override the file's `run`.

    Raises:
      ConfigError: the file is unreadable, a field is unknown or out of range, or an option that affects only runs is
        given beside traces.
    """
    check_unicode({**options, **run}, "settings")
    fields = {} if file is None else read_yaml(file)
    if "traces" in options:
        fields.pop("models", None)
    if "models" in options:
        fields.pop("traces", None)
    runs_only = {f"--{name.replace('_', '-')}" for name in run}
    for name in options:
        extra: Any = kind.model_fields[name].json_schema_extra or {}
        if extra.get("runs_only"):
            runs_only.add(extra["option"])
    if runs_only and (options.get("traces") or fields.get("traces")):
        raise ConfigError(f"{min(runs_only)} affects only runs that the study makes; drop it, or name a --model")
    if isinstance(fields.setdefault("run", {}), dict):  # another value is the settings' own error
        fields["run"] = overridden(fields["run"], run)
    return validated(kind, {**fields, **options}, origin(file, options))


def study_command(study: Study) -> Command:
    """Return the verb of a study."""
    run_settings = (RunConfig, study.run_settings)
    function = functools.partial(run_study, study)
    settings = (study.settings, run_settings, StudyOptions, ResumeOptions)
    return Command(f"study {study.name}", study.summary, function, settings, study.example)
