"""Attention entropy at the first wrong step of an answer, compared with its other steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxtrace.errors import StudyError
from jaxtrace.grading.labels import Label, labels_for
from jaxtrace.grading.strings import Grade
from jaxtrace.statistics.differences import paired_difference
from jaxtrace.statistics.intervals import mean_intervals
from jaxtrace.statistics.means import finite_mean
from jaxtrace.statistics.ranking import auroc
from jaxtrace.studies._shared.adjustment import adjusted_table
from jaxtrace.studies._shared.result import Picture, Result, Table
from jaxtrace.studies.patterns.figures import around_figure
from jaxtrace.studies.patterns.tables import MEAN, STEP_METRICS
from jaxtrace.studies.patterns.trajectories import (
    Trajectory,
    attention_notes,
    prompt_numbers,
    trajectories,
    without_ln_keys,
)
from jaxtrace.traces.trace import Trace

AROUND = 12  # steps to either side of the wrong one in the picture
RIGHT_CONTROL = "right answers, same steps"


class WrongAnswer(NamedTuple):
    """An answer that goes wrong.

    Attributes:
      start, end: first and last step of the mistake, counted from 0 at the first token.
    """

    answer: Trajectory
    start: int
    end: int


Part = Callable[[np.ndarray, WrongAnswer], np.ndarray]  # steps [n] → bool [n], True for steps of the part
PARTS: dict[str, Part] = {
    "the wrong step − the rest": lambda at, wrong: (at >= wrong.start) & (at <= wrong.end),
    "from the wrong step on − before it": lambda at, wrong: at >= wrong.start,
}
WRONG_STEPS_TEXT = (
    "Differences between the tokens of an answer, means over answers with 95 % intervals: in the metric's unit, and as "
    "g of the paired differences. auroc is the probability that a token of the part named first has the larger value. "
    "Answers are resampled; p flips the signs of whole answers' differences. "
    f"'{RIGHT_CONTROL}' subtracts what right answers show on average at the same steps."
)
AROUND_TEXT = (
    "Attention entropy and varentropy, means over layers, heads and answers with 95 % t intervals over prompts, around "
    "the first token of the wrong step."
)


def wrong_steps(traces: Mapping[str, Trace], file: Path | None, *, seed: int = 0, resamples: int = 2000) -> Result:
    """Compare tokens of the first wrong step with the other tokens of the same answer, step 0 excluded.

    Args:
      traces: generated traces with attention probes, by label.
      file: file of labels, some with a wrong step (`jaxtrace grade --critic-model`).

    Raises:
      StudyError: there is no file, fewer than two answers of a trace have a wrong step after others, or a trace lacks
        probes or holds given text.
    """
    if file is None:
        raise StudyError("wrong_step: needs wrong steps; give --labels FILE of jaxtrace grade --critic-model")
    compared, around, notes = [], [], []
    for label, trace in traces.items():
        labels = labels_for(trace.rows, file)
        answers = trajectories(label, trace, [""] * len(labels))
        wrong, right = _split_by_grade(answers, labels)
        if len(wrong) < 2:
            raise StudyError(
                f"{label}: {len(wrong)} answers have a wrong step after others; give labels of two or more"
            )
        compared.append(_compared(label, wrong, right, {"seed": seed, "resamples": resamples}))
        around.append(_around(label, wrong))
        notes.append(f"{label}: {len(wrong)} answers with a wrong step after others, and {len(right)} right ones.")
        notes += attention_notes(label, trace, answers)
        reasons = Counter(of_row.wrong_by for of_row in labels if of_row.wrong_by and of_row.wrong_from is None)
        notes += [f"{label}: {count} answers without a wrong step ({reason})." for reason, count in reasons.items()]
    along = Table(pd.concat(around), AROUND_TEXT)
    return Result(
        "patterns",
        "Does attention entropy tell where an answer goes wrong?",
        {"wrong_steps": adjusted_table(pd.concat(compared), WRONG_STEPS_TEXT, "model"), "around": along},
        {"around": Picture(partial(around_figure, along.frame), AROUND_TEXT, along.few)},
        (*notes, "Tokens from the wrong step on come later, and later tokens see more keys: read the controls."),
    )


def _split_by_grade(
    answers: Sequence[Trajectory], labels: Sequence[Label]
) -> tuple[list[WrongAnswer], list[Trajectory]]:
    """Return answers that go wrong after step 1, and right ones of more than step 0."""
    wrong, right = [], []
    for answer in answers:
        label = labels[answer.row]
        if label.grade is Grade.CORRECT and answer.steps > 1:
            right.append(answer)
        elif label.wrong_from is not None and label.wrong_to is not None and 1 < label.wrong_from < answer.steps:
            wrong.append(WrongAnswer(answer, label.wrong_from, label.wrong_to))
    return wrong, right


def _compared(
    label: str, wrong: Sequence[WrongAnswer], right: Sequence[Trajectory], settings: dict[str, int]
) -> pd.DataFrame:
    groups = prompt_numbers(one.answer for one in wrong)
    token_groups = np.repeat(groups, [one.answer.steps - 1 for one in wrong])
    rows = []
    for metric in wrong[0].answer.values:
        plain = [one.answer.after_first(metric) for one in wrong]
        of_right = [answer.after_first(metric) for answer in right]
        residuals = without_ln_keys(plain + of_right, [*(one.answer for one in wrong), *right])[: len(wrong)]
        for name, part in PARTS.items():
            keys = {"model": label, "metric": metric, "comparison": name}
            masks = [_mask(values, one, part) for values, one in zip(plain, wrong, strict=True)]
            for control, series in (("ln(keys) removed", residuals), ("none", plain)):
                gaps, values, inside = _gaps(series, masks), np.concatenate(series), np.concatenate(masks)
                known, finite = np.isfinite(gaps), np.isfinite(values)
                if not known.any():
                    continue
                ranked = auroc(inside[finite], values[finite], groups=token_groups[finite], **settings)
                paired = _paired(gaps[known], np.zeros(known.sum()), groups[known], settings)
                rows.append(keys | {"control": control} | paired | ranked.columns("auroc"))
            expected = np.array([_expected(of_right, one, part) for one in wrong])
            gaps = _gaps(plain, masks)
            known = np.isfinite(expected) & np.isfinite(gaps)
            if known.sum() > 1:
                beyond = _paired(gaps[known], expected[known], groups[known], settings)
                rows.append(keys | {"control": RIGHT_CONTROL} | beyond)
    if not rows:
        raise StudyError(f"{label}: no attention metric is finite around a wrong step; trace another model")
    return pd.DataFrame(rows)


def _paired(gaps: np.ndarray, expected: np.ndarray, groups: np.ndarray, settings: dict[str, int]) -> dict[str, float]:
    return paired_difference(gaps, expected, groups=groups, **settings).columns("g")


def _mask(values: np.ndarray, wrong: WrongAnswer, part: Part) -> np.ndarray:
    """Return True for the steps, from 1 on, that belong to the part."""
    return part(np.arange(1, len(values) + 1), wrong)


def _gaps(series: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
    """Return each answer's mean inside its mask minus its mean outside."""
    return np.array([finite_mean(v[mask]) - finite_mean(v[~mask]) for v, mask in zip(series, masks, strict=True)])


def _expected(right: Sequence[np.ndarray], wrong: WrongAnswer, part: Part) -> float:
    """Return the mean difference of right answers at the steps of a wrong one's part; NaN if none is long enough."""
    long_enough = [values for values in right if _mask(values, wrong, part).any()]
    gaps = _gaps(long_enough, [_mask(values, wrong, part) for values in long_enough])
    return float(finite_mean(gaps))


def _around(label: str, wrong: Sequence[WrongAnswer]) -> pd.DataFrame:
    offsets = np.arange(-AROUND, AROUND + 1)
    frames = []
    for name in STEP_METRICS:
        values = np.full((len(wrong), len(offsets)), np.nan)
        for i, one in enumerate(wrong):
            steps = one.start + offsets
            inside = (steps >= 1) & (steps < one.answer.steps)
            values[i, inside] = one.answer.values[name][steps[inside]]
        means = mean_intervals(values, prompt_numbers(one.answer for one in wrong))
        frames.append(means.assign(model=label, condition="answers that go wrong", metric=name, offset=offsets))
    columns = ["model", "condition", "metric", "offset", *MEAN, "n"]
    return pd.concat(frames).query("n > 0").reindex(columns=columns)
