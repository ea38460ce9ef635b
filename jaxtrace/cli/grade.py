"""`jaxtrace grade`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from jaxtrace import interrupts
from jaxtrace.cli.chat_options import JUDGE, ChatOptions
from jaxtrace.cli.existing import OverwriteOptions
from jaxtrace.cli.options import Arguments, command
from jaxtrace.cli.output import console, errors, say
from jaxtrace.cli.signals import NOTHING_WRITTEN, on_interrupt
from jaxtrace.files import check_writable
from jaxtrace.outputs import claim_file
from jaxtrace.settings.groups import OUTPUT, TRACE

if TYPE_CHECKING:
    from jaxtrace.grading.labels import Label
    from jaxtrace.traces.reader import StoredTrace


class GradeOptions(ChatOptions):
    """Options of `jaxtrace grade`."""

    trace: str = Field(
        description="Directory or URL of a trace.",
        json_schema_extra=TRACE,
    )
    published_checker: bool = Field(
        False, description="MMLU: grade as Entropy-Lens's code does, by a letter in prompt and answer."
    )
    letters: bool = Field(
        False, description="Multiple choice: grade by the likeliest letter; runs the trace's model once more."
    )
    judge_model: str | None = Field(
        None, description="Model of that API that grades answers in words.", json_schema_extra=JUDGE
    )
    critic_model: str | None = Field(
        None, description="Model of that API that finds the first wrong step.", json_schema_extra=JUDGE
    )
    out: Path = Field(description="File of labels, JSON lines.", json_schema_extra=OUTPUT)

    @model_validator(mode="after")
    def _check_judge(self) -> Self:
        if bool(self.judge_url) != bool(self.judge_model or self.critic_model):
            raise ValueError(
                "--judge-url needs --judge-model or --critic-model, and they need it; give both, or neither"
            )
        if self.letters and (self.published_checker or self.judge_model):
            other = "--published-checker" if self.published_checker else "--judge-model"
            raise ValueError(f"--letters and {other} both grade the answers; keep one")
        return self


@command("grade", GradeOptions, OverwriteOptions, example="jaxtrace grade runs/demo --out runs/demo-labels.jsonl")
def grade(arguments: Arguments) -> None:
    """Grade the answers of a trace by rules, or by a judge model; studies read the labels.

    The API's key is read from $OPENAI_API_KEY. Stored replies are not requested again, with --overwrite neither.
    """
    options = arguments.settings(GradeOptions)
    answers = options.replies(options.out)
    replies = f"replies are kept in {answers}; run the same command again to resume"
    on_interrupt(lambda: replies if options.judge_url else NOTHING_WRITTEN)
    claim_file(options.out, overwrite=arguments.settings(OverwriteOptions).overwrite)
    from jaxtrace.errors import StudyError
    from jaxtrace.grading.critic import criticize_answers, needs_critic
    from jaxtrace.grading.judge import judge_answers, needs_judge
    from jaxtrace.grading.labels import label_of, write_labels
    from jaxtrace.lock import WriteLock
    from jaxtrace.traces import open_trace

    if options.cache:
        check_writable(options.cache)
    trace = open_trace(options.trace)
    if trace.info.get("mode") != "generate":
        raise StudyError(f"{options.trace}: a trace of given texts, which has no answers; grade a trace that generates")

    rows = [replace(row, metrics={}) for row in trace.rows]  # metrics may be large
    if options.letters:
        labels = _letter_labels(options.trace, trace)
    else:
        labels = [label_of(row, published_checker=options.published_checker) for row in rows]
    # Gradings may share a named cache; the same grading twice at once would pay for each reply twice.
    with WriteLock(answers) if options.judge_url and not options.cache else nullcontext():
        if options.judge_model:
            with options.chat(options.judge_model, options.out) as judge:
                count = sum(needs_judge(row) for row in rows)
                labels = _with_bar("judge", count, lambda on: judge_answers(rows, labels, judge, on))
        if options.critic_model:
            with options.chat(options.critic_model, options.out) as critic:
                count = sum(needs_critic(*pair) for pair in zip(rows, labels, strict=True))
                labels = _with_bar("critic", count, lambda on: criticize_answers(rows, labels, critic, on))
        write_labels(labels, options.out)
    on_interrupt(lambda: f"{options.out} is complete")
    _print_counts(labels, [row.prompt_key for row in rows])
    say(options.out)


def _letter_labels(where: str, trace: StoredTrace) -> list[Label]:
    """Return the labels of a trace's answers by the likeliest letter; loads the model of each of its runs."""
    from datetime import datetime

    from jaxtrace.cli.progress import counter
    from jaxtrace.errors import StudyError
    from jaxtrace.grading.choices import letter_labels
    from jaxtrace.model import Model
    from jaxtrace.run import open_config_model, run_config
    from jaxtrace.traces.reader import StoredTrace

    labels = []
    for run in trace.runs:
        if run.config is None:
            raise StudyError(f"{where}: does not say how its prompts were made; give a run of `jaxtrace trace`")
        config, date = run_config(**run.config), (run.info.get("prompt_format") or {}).get("date")
        model = Model.from_checkpoint(open_config_model(config), dtype=config.dtype, mesh=config.mesh)
        rows = [replace(row, metrics={}) for row in StoredTrace.of([run], trace.only).rows]
        date = date and datetime.fromisoformat(date)
        with counter("letters", "prompts") as show:
            labels += letter_labels(model, rows, config, date, on_answers=show)
    return labels


def _with_bar(name: str, count: int, request: Callable[[Callable[[int], None]], list[Label]]) -> list[Label]:
    """Return the labels that a model gives, with a bar on standard error meanwhile."""
    from rich.progress import Progress

    with Progress(console=errors, disable=console.quiet) as progress:
        bar = progress.add_task(name, total=count)

        def on_answer(answers: int) -> None:
            progress.update(bar, advance=answers)
            interrupts.check()

        return request(on_answer)


def _print_counts(labels: list[Label], prompts: list[str]) -> None:
    """Print the number of answers with each grade by each rule, and with a wrong step; `prompts` has one per label."""
    import numpy as np
    from rich.table import Table

    from jaxtrace.figures.tables.parts import plain
    from jaxtrace.grading.strings import Grade
    from jaxtrace.statistics.intervals import FEW_NOTE, bootstrap

    table = Table("answers", "grade", "by")
    for (value, by), count in Counter((label.grade.value, label.by) for label in labels).most_common():
        table.add_row(str(count), value, plain(by))
    for by, count in Counter(label.wrong_by for label in labels if label.wrong_by).most_common():
        table.add_row(str(count), "wrong step", plain(by))
    console.print(table)
    graded = np.array([label.grade is not Grade.UNGRADED for label in labels], bool)
    if graded.any():
        right = np.array([label.grade is Grade.CORRECT for label in labels], float)[graded]
        share = bootstrap(np.mean, right, groups=np.array(prompts)[graded], bounds=(0.0, 1.0))
        interval = f"[{share.low:.3f}, {share.high:.3f}]{'*' if share.few else ''}"
        console.print(f"accuracy {share.value:.3f} {interval}, 95 % interval over {share.n} prompts")
        if share.few:
            console.print(FEW_NOTE)
