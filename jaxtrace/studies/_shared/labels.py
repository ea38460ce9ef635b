"""Classes and groups of answers, read from their prompts and their runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from jaxtrace.errors import StudyError, few, shown
from jaxtrace.grading.labels import label_of, labels_for
from jaxtrace.grading.strings import Grade
from jaxtrace.studies._shared.traces import single_runs
from jaxtrace.traces.reader import StoredTrace
from jaxtrace.traces.requirements import require_rows
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

RowLabel = Callable[[Trace, Row], str | None]

SHARED_KEYS = ("story", "topic", "question")  # keys of meta that name what several prompts of a task are about


def row_labels(
    traces: Mapping[str, Trace], by: str, file: Path | None = None, *, published_checker: bool = False
) -> RowLabel:
    """Return the function that labels a row of these traces; it returns None for a row without a label.

    Args:
      traces: traces of one run or of several; a row of several is labelled as a row of its own run's trace.
      by: kind of label. "correctness": correct or incorrect, by the string rules of `jaxtrace.grading` or a file of
        labels; other grades give no label. "task": the prompt's `kind`, or else the run's task. Any other name: the
        value of this key in the prompt's `meta`, or else in the run (family, model, temperature, …).
      published_checker: grade MMLU as the published code of Entropy-Lens does; see `grade_answer`.

    Raises:
      StudyError: no row of some trace has a label; the message lists the known keys.
    """
    require_rows(traces)
    grades = {}
    if by == "correctness" and file is not None:
        for trace in traces.values():
            labels = labels_for(trace.rows, file)
            grades |= {(row.prompt.id, row.text): label.grade for row, label in zip(trace.rows, labels, strict=True)}

    def label(trace: Trace, row: Row) -> str | None:
        if by == "correctness":
            grade = grades.get((row.prompt.id, row.text)) or label_of(row, published_checker=published_checker).grade
            return grade.value if grade in (Grade.CORRECT, Grade.INCORRECT) else None
        meta, key = row.prompt.meta, "kind" if by == "task" and "kind" in row.prompt.meta else by
        return _label_text(key, meta[key] if key in meta else run_facts(trace).get(key))

    for where, trace in traces.items():
        runs = single_runs({where: trace}).values()
        if not any(label(run, row) is not None for run in runs for row in run.rows):
            raise StudyError(f"{where}: {_no_label(runs, by)}")
    return label


def row_groups(key: str | None = None) -> RowLabel:
    """Return the function that names a row's group; rows of one group are held out together.

    Args:
      key: key of the prompt's `meta`; None for its story, topic or question, or else the prompt itself.

    Raises:
      StudyError: the returned function meets a prompt without the key; the message lists the prompt's keys.
    """

    def group(trace: Trace, row: Row) -> str:
        meta = row.prompt.meta
        if key is not None and key not in meta:
            known = f"its meta has {few(sorted(meta), most=20)}" if meta else "it has no meta"
            raise StudyError(f"prompt {shown(row.prompt.id)}: has no '{key}' to group by; {known}")
        for name in SHARED_KEYS if key is None else (key,):
            if name in meta:
                return f"{name} {meta[name]}"
        return row.prompt_key

    return group


def model_of(trace: Trace, row: Row) -> str:
    """Return the name of a row's model: its group where families are told apart on held-out models."""
    return str(trace.info.get("model"))


def run_facts(trace: Trace) -> dict[str, Any]:
    """Return the facts about a one-run trace's run: settings, info, keys of its partition."""
    if not (isinstance(trace, StoredTrace) and trace.runs):
        return _info_facts(trace)
    (run,) = trace.runs
    settings = {name: value for name, value in (run.config or {}).items() if value is not None}
    if settings.get("sampler") == "greedy":
        settings["temperature"] = "greedy"
    return {**run.keys, **_info_facts(trace), **settings}


def _info_facts(trace: Trace) -> dict[str, Any]:
    """Return the info of a trace, with the revision as it was named; without a name it is the commit."""
    named = trace.info.get("revision_name")
    return {**trace.info, "revision": named} if named else dict(trace.info)


def _label_text(key: str, value: Any) -> str | None:
    if isinstance(value, bool):
        return key if value else f"not {key}"
    return f"{value:g}" if isinstance(value, float) else None if value is None else str(value)


def _no_label(runs: Collection[Trace], by: str) -> str:
    if by == "correctness":
        return "no answer can be graded; give --labels FILE, or prompts with reference answers"
    known = sorted({key for run in runs for row in run.rows for key in {*row.prompt.meta, *run_facts(run)}})
    return f"no prompt and no run has '{by}'; choose one of: correctness, task, {few(known, most=60)}"
