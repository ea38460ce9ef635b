"""What the verbs of all studies have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from jaxtrace.cli.app import Option, console
from jaxtrace.cli.progress import with_progress
from jaxtrace.errors import ConfigError

if TYPE_CHECKING:
    from jaxtrace.studies._shared.result import Result
    from jaxtrace.studies._shared.settings import StudyConfig
    from jaxtrace.traces.trace import Trace

study_app = typer.Typer(help="What traces say: one study each, with tables, pictures and a page.", no_args_is_help=True)

Traces = Annotated[list[str] | None, typer.Argument(metavar="TRACE", help="Directories or URLs of traces.")]
Config = Annotated[Path | None, Option(help="YAML file of the study's settings; options override it.")]
Models = Annotated[list[str] | None, Option("--model", help="A model to trace first; may be given several times.")]
Task = Annotated[str | None, Option(help="The task that is traced.")]
Data = Annotated[Path | None, Option(help="The task's data file; the hub's copy without it.")]
Limit = Annotated[int | None, Option(help="Trace this many prompts at most.")]
MaxNewTokens = Annotated[int | None, Option(help="Most tokens drawn for a prompt.")]
Seed = Annotated[int | None, Option(help="Of all that is drawn at random. Default: 0.")]
Out = Annotated[Path, Option(help="Directory of the result: tables, pictures, study.html.")]

OF_RUNS = ("task", "data", "limit", "max_new_tokens", "compat_duplicate_last_prompt_token")

T = TypeVar("T", bound="StudyConfig")


def configured(kind: type[T], file: Path | None, given: Mapping[str, Any]) -> T:
    """A study's settings, from a YAML file and the options of its verb.

    Args:
      kind: of the settings.
      file: what is not given is taken from it.
      given: the verb's `locals()`: options that were not given are None; those of `OF_RUNS` are of the runs.

    Raises:
      ConfigError: the file cannot be read, a field is unknown or out of range, or an option of runs is given beside
        traces.
    """
    from jaxtrace.files import read_yaml
    from jaxtrace.run import validated

    fields = {} if file is None else read_yaml(file)
    said = {name: value for name, value in given.items() if value is not None and name in kind.model_fields}
    of_runs = {name: given[name] for name in OF_RUNS if given.get(name) is not None}
    if "traces" in said:
        fields.pop("models", None)
    if "models" in said:
        fields.pop("traces", None)
    if of_runs and (said.get("traces") or fields.get("traces")):
        name = min(of_runs).replace("_", "-")
        raise ConfigError(f"--{name} is of runs that are to be made; leave it out, or name a --model for the traces")
    fields |= said | {"run": {**fields.get("run", {}), **of_runs}}
    return validated(kind, fields, str(file or "settings"))


def traced(config: StudyConfig, out: Path) -> dict[str, Trace]:
    """The traces of a study; where it makes them, with progress."""
    from jaxtrace.compilation import counted
    from jaxtrace.studies._shared.progress import Silent
    from jaxtrace.studies._shared.traces import traces_of

    class Bars(Silent):
        def run(self, label: str, run: Any) -> Trace:
            return with_progress(run, compiled, label)

    with counted() as compiled:
        return traces_of(config, out, Bars())


def studied(result: Result, out: Path) -> None:
    """Writes a study's result, and prints its tables and notes."""
    from jaxtrace.studies._shared.page import printed, write_study

    page = write_study(result, out)
    for name, table in result.tables.items():
        console.print(printed(name, table))
    for note in result.notes:
        console.print(note, markup=False, highlight=False)
    console.print(str(page), markup=False, highlight=False, soft_wrap=True)
