"""What class an answer is in, and what it must not be parted from: what its prompt and its run say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtrace.errors import StudyError
from jaxtrace.grading.labels import label_of, labels_for
from jaxtrace.grading.strings import Grade
from jaxtrace.studies.lens.profiles import Labelled
from jaxtrace.traces.reader import StoredTrace
from jaxtrace.traces.trace import Row, Trace

SHARED = ("story", "topic", "question")  # what several prompts of a task may be about


def labelling(
    traces: Mapping[str, Trace], by: str, file: Path | None = None, *, letter_anywhere: bool = False
) -> Labelled:
    """The label of a row of these traces.

    Args:
      traces: each of one run.
      by: "correctness": correct and incorrect answers, by the rules on strings of `jaxtrace.grading` or the labels of a
        file; those that were not attempted or not graded have none. "task": the prompt's `kind`, or else the run's
        task. Any other name: what the prompt's `meta` says under it, or else the run (family, model, temperature, …).
      file: of labels, for "correctness".
      letter_anywhere: grade MMLU as Entropy-Lens does; see `grading.strings.graded`.

    Raises:
      StudyError: no row of some trace has a label; the message says what there is.
    """
    graded = {}
    if by == "correctness" and file is not None:
        for trace in traces.values():
            labels = labels_for(trace.rows, file)
            graded |= {(row.prompt.id, row.text): one.grade for row, one in zip(trace.rows, labels, strict=True)}

    def label(trace: Trace, row: Row) -> str | None:
        if by == "correctness":
            found = graded.get((row.prompt.id, row.text)) or label_of(row, letter_anywhere=letter_anywhere).grade
            return found.value if found in (Grade.CORRECT, Grade.INCORRECT) else None
        meta, key = row.prompt.meta, "kind" if by == "task" and "kind" in row.prompt.meta else by
        return _text(key, meta[key] if key in meta else of_run(trace).get(key))

    for where, trace in traces.items():
        if not any(label(trace, row) is not None for row in trace.rows):
            raise StudyError(f"{where}: {_nothing(trace, by)}")
    return label


def grouping(key: str | None = None) -> Labelled:
    """The group of a row: rows of a group are held out together.

    Args:
      key: of the prompt's `meta`; None for its story, topic or question, or else the prompt itself.

    Raises:
      StudyError: when a row is asked for whose prompt lacks the key; the message says what there is.
    """

    def group(trace: Trace, row: Row) -> str:
        meta = row.prompt.meta
        if key is not None and key not in meta:
            known = f"its meta has {', '.join(sorted(meta))}" if meta else "it has no meta"
            raise StudyError(f"prompt {row.prompt.id}: has no '{key}' to group by; {known}")
        for name in SHARED if key is None else (key,):
            if name in meta:
                return f"{name} {meta[name]}"
        return prompt_of(row)

    return group


def prompt_of(row: Row) -> str:
    """What is the same for all samples of a prompt: its text, however a model's tokenizer or chat template puts it, or
    the tokens of one that has none."""
    return " ".join(map(str, row.prompt_tokens)) if row.prompt.text is None else row.prompt.text


def of_model(trace: Trace, row: Row) -> str:
    """The group of a row where families are told apart: on models that were held out."""
    return str(trace.info.get("model"))


def of_run(trace: Trace) -> dict[str, Any]:
    """What a trace of one run says of its making: settings, info, keys of its partition."""
    if not (isinstance(trace, StoredTrace) and trace.runs):
        return dict(trace.info)
    (run,) = trace.runs
    settings = {name: value for name, value in (run.config or {}).items() if value is not None}
    if settings.get("sampler") == "greedy":
        settings["temperature"] = "greedy"
    return {**run.keys, **trace.info, **settings}


def _text(key: str, value: Any) -> str | None:
    if isinstance(value, bool):
        return key if value else f"not {key}"
    return f"{value:g}" if isinstance(value, float) else None if value is None else str(value)


def _nothing(trace: Trace, by: str) -> str:
    if by == "correctness":
        return "no answer can be graded; give --labels FILE, or prompts with reference answers"
    known = sorted({key for row in trace.rows for key in row.prompt.meta} | of_run(trace).keys())
    return f"nothing is known of '{by}'; its prompts and its run say: correctness, task, {', '.join(known)}"
