"""`jaxtrace grade`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxtrace.cli.app import Option, app, console, errors, verb

if TYPE_CHECKING:
    from jaxtrace.grading.labels import Label


@app.command()
@verb
def grade(
    directory: Annotated[str, typer.Argument(metavar="TRACE", help="Directory or URL of a trace.")],
    out: Annotated[Path, Option(help="The file of labels, JSON lines.")],
    judge_url: Annotated[str | None, Option(help="Base URL of an OpenAI-compatible chat API.")] = None,
    judge_model: Annotated[str | None, Option(help="A model there that grades answers in words.")] = None,
    critic_model: Annotated[str | None, Option(help="A model there that finds the first wrong step.")] = None,
    cache: Annotated[Path | None, Option(help="Directory of answers already paid for. Default: OUT.cache.")] = None,
    timeout: Annotated[float, Option(help="Seconds to wait for the API, each time. Default: 60.")] = 60.0,
    retries: Annotated[int, Option(help="Times to ask again where the API fails. Default: 3.")] = 3,
    letter_anywhere: Annotated[
        bool, Option("--letter-anywhere", help="MMLU: the right letter counts wherever it stands alone.")
    ] = False,
) -> None:
    """Grade the answers of a trace by rules, or by a model that is asked; other studies read the labels.

    The API's key is read from $OPENAI_API_KEY.
    """
    from jaxtrace.errors import StudyError
    from jaxtrace.grading.chat import Chat
    from jaxtrace.grading.critic import criticised, is_criticised
    from jaxtrace.grading.judge import is_judged, judged
    from jaxtrace.grading.labels import label_of, write_labels
    from jaxtrace.traces import open_trace

    trace = open_trace(directory)
    if trace.info.get("mode") != "generate":
        raise StudyError(f"{directory}: is of given text, which answers nothing; grade a trace that generates")
    if bool(judge_url) != bool(judge_model or critic_model):
        raise StudyError("--judge-url needs --judge-model or --critic-model, and they need it; give both, or neither")

    def chat(model: str) -> Chat:
        answers = cache or out.with_name(f"{out.name}.cache")
        return Chat(judge_url or "", model, answers, timeout=timeout, retries=retries)

    rows = [replace(row, metrics={}) for row in trace.rows]  # which may be large
    labels = [label_of(row, letter_anywhere=letter_anywhere) for row in rows]
    if judge_model:
        with chat(judge_model) as judge:
            labels = _watched("judge", sum(is_judged(row) for row in rows), lambda on: judged(rows, labels, judge, on))
    if critic_model:
        pairs = zip(rows, labels, strict=True)
        with chat(critic_model) as critic:
            count = sum(is_criticised(*pair) for pair in pairs)
            labels = _watched("critic", count, lambda on: criticised(rows, labels, critic, on))
    write_labels(labels, out)
    _print(labels)
    console.print(str(out), markup=False, highlight=False, soft_wrap=True)


def _watched(name: str, count: int, asked: Callable[[Callable[[int], None]], list[Label]]) -> list[Label]:
    """What a model that is asked says, with a bar on standard error."""
    from rich.progress import Progress

    with Progress(console=errors, disable=console.quiet) as progress:
        bar = progress.add_task(name, total=count)
        return asked(lambda answers: progress.update(bar, advance=answers))


def _print(labels: list[Label]) -> None:
    """How many answers got which grade by which rule, and how many have a wrong step."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("answers", "grade", "by")
    for (found, by), count in Counter((label.grade.value, label.by) for label in labels).most_common():
        table.add_row(str(count), found, escape(by))
    for by, count in Counter(label.wrong_by for label in labels if label.wrong_by).most_common():
        table.add_row(str(count), "wrong step", escape(by))
    console.print(table)
