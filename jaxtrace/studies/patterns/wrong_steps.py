"""Attention entropy at the first wrong step of an answer against the rest of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from jaxtrace.errors import StudyError
from jaxtrace.grading.labels import Label, labels_for
from jaxtrace.grading.strings import Grade
from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.differences import paired_difference
from jaxtrace.statistics.ranking import auroc
from jaxtrace.studies._shared.result import Picture, Result, Table
from jaxtrace.studies.patterns import figures as patterns_pictures
from jaxtrace.studies.patterns.tables import ALONG, interval_of_means
from jaxtrace.studies.patterns.trajectories import Trajectory, trajectories
from jaxtrace.traces.trace import Trace

AROUND = 12  # steps to either side of the wrong one that the picture shows
ALIKE = "right answers split alike"


class Wrong(NamedTuple):
    """An answer that goes wrong.

    Attributes:
      answer: its steps.
      start, end: the first and the last step of what is wrong, counted from 0 at the first token.
    """

    answer: Trajectory
    start: int
    end: int


PARTS: dict[str, Callable[[np.ndarray, Wrong], np.ndarray]] = {
    "the wrong step − the rest": lambda at, wrong: (at >= wrong.start) & (at <= wrong.end),
    "from the wrong step on − before it": lambda at, wrong: at >= wrong.start,
}
Part = Callable[[np.ndarray, Wrong], np.ndarray]


def wrong_steps(traces: Mapping[str, Trace], file: Path | None, *, seed: int = 0, resamples: int = 2000) -> Result:
    """Compares tokens of the first wrong step with the other tokens of the same answer; step 0 is left out.

    Args:
      traces: by label; generated, with attention probes.
      file: labels, some of them with a wrong step (`jaxtrace grade --critic-model`).
      seed, resamples: of intervals and tests.

    Raises:
      StudyError: there is no file, fewer than two answers of a trace have a wrong step after others, or a trace lacks
        probes or is of given text.
    """
    if file is None:
        raise StudyError("wrong_step: which steps are wrong? give --labels FILE of jaxtrace grade --critic-model")
    compared, around, notes = [], [], []
    for label, trace in traces.items():
        labels = labels_for(trace.rows, file)
        wrong, right = _parted(trajectories(label, trace, [""] * len(labels)), labels)
        if len(wrong) < 2:
            raise StudyError(
                f"{label}: {len(wrong)} answers have a wrong step after others; give labels of two or more"
            )
        compared.append(_compared(label, wrong, right, seed, resamples))
        around.append(_around(label, wrong))
        notes.append(f"{label}: {len(wrong)} answers with a wrong step after others, and {len(right)} right ones.")
        whys = Counter(one.wrong_by for one in labels if one.wrong_by and one.wrong_from is None)
        notes += [f"{label}: {count} answers without a wrong step ({why})." for why, count in whys.items()]
    return Result(
        "patterns",
        "Does attention entropy tell where an answer goes wrong?",
        {"wrong_steps": Table(pd.concat(compared), COMPARED), "around": Table(pd.concat(around), AROUND_TEXT)},
        {"around": Picture(partial(patterns_pictures.around, pd.concat(around)), AROUND_TEXT)},
        (*notes, "Tokens from the wrong step on come later, and later tokens see more keys: read the controls."),
    )


COMPARED = (
    "Differences between the tokens of an answer, means over answers with 95 % intervals: in the metric's unit, and "
    "as g of the paired differences. auroc is the probability that a token of the part named first has the larger "
    "value. Answers are resampled; p changes the signs of whole answers' differences; p_adjusted is after Benjamini "
    f"and Hochberg over a model's lines. '{ALIKE}' takes off what right answers show on average at the same steps."
)
AROUND_TEXT = (
    "Attention entropy and varentropy, means over layers, heads and answers with 95 % t intervals, around the first "
    "token of the wrong step."
)


def _parted(answers: Sequence[Trajectory], labels: Sequence[Label]) -> tuple[list[Wrong], list[Trajectory]]:
    """Answers that go wrong after step 1, and right ones of more than step 0."""
    wrong, right = [], []
    for one in answers:
        label = labels[one.row]
        if label.grade is Grade.CORRECT and one.steps > 1:
            right.append(one)
        elif label.wrong_from is not None and label.wrong_to is not None:
            place = Wrong(one, label.wrong_from, label.wrong_to)
            wrong += [place] * (1 < place.start < one.steps)
    return wrong, right


def _compared(
    label: str, wrong: Sequence[Wrong], right: Sequence[Trajectory], seed: int, resamples: int
) -> pd.DataFrame:
    settings = {"seed": seed, "resamples": resamples}
    rows = []
    for metric in wrong[0].answer.values:
        for part, of in PARTS.items():
            plain, left, right_plain = _series(metric, wrong, right)
            key = {"model": label, "metric": metric, "comparison": part}
            rows.append(key | {"control": "none"} | _line(plain, wrong, of, settings))
            rows.append(key | {"control": "ln(keys) removed"} | _line(left, wrong, of, settings))
            expected = np.array([_expected(right_plain, one, of) for one in wrong])
            if np.isfinite(expected).sum() > 1:
                rows.append(key | {"control": ALIKE} | _beyond(plain, wrong, of, expected, settings))
    frame = pd.DataFrame(rows)
    return frame.assign(p_adjusted=false_discovery_control(frame["p"]))


def _series(
    metric: str, wrong: Sequence[Wrong], right: Sequence[Trajectory]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """A metric after step 0: of wrong answers, of the same without what ln(keys) explains, of right answers."""
    answers = [*(one.answer for one in wrong), *right]
    plain = [one.values[metric][1:] for one in answers]
    keys = np.concatenate([one.ln_keys[1:] for one in answers])
    left = np.split(residualize(np.concatenate(plain), keys), np.cumsum([len(one) for one in plain])[:-1])
    return plain[: len(wrong)], left[: len(wrong)], plain[len(wrong) :]


def _line(series: Sequence[np.ndarray], wrong: Sequence[Wrong], of: Part, settings: dict[str, int]) -> dict[str, float]:
    marks = [_marks(one, place, of) for one, place in zip(series, wrong, strict=True)]
    gaps = [_gap(one, mark) for one, mark in zip(series, marks, strict=True)]
    tokens = np.repeat([place.answer.group for place in wrong], [len(one) for one in series])
    ranked = auroc(np.concatenate(marks), np.concatenate(series), groups=tokens, **settings)
    found = _paired(np.array(gaps), np.zeros(len(gaps)), wrong, settings)
    return found | ranked.columns("auroc")


def _beyond(
    series: Sequence[np.ndarray], wrong: Sequence[Wrong], of: Part, expected: np.ndarray, settings: dict[str, int]
) -> dict[str, float]:
    gaps = np.array([_gap(one, _marks(one, place, of)) for one, place in zip(series, wrong, strict=True)])
    there = np.isfinite(expected)
    return _paired(gaps[there], expected[there], list(compress(wrong, there)), settings)


def _paired(
    gaps: np.ndarray, expected: np.ndarray, wrong: Sequence[Wrong], settings: dict[str, int]
) -> dict[str, float]:
    gap = paired_difference(gaps, expected, groups=[place.answer.group for place in wrong], **settings)
    return gap.difference.columns("difference") | gap.effect.columns("g") | {"p": gap.p, "n": len(gaps)}


def _marks(series: np.ndarray, wrong: Wrong, of: Part) -> np.ndarray:
    """Which of the steps from 1 on are of the part."""
    return of(np.arange(1, len(series) + 1), wrong)


def _gap(series: np.ndarray, mark: np.ndarray) -> float:
    return float(series[mark].mean() - series[~mark].mean())


def _expected(right: Sequence[np.ndarray], wrong: Wrong, of: Part) -> float:
    """The mean difference of right answers at the steps of a wrong one's part; NaN where none is long enough."""
    marks = [_marks(one, wrong, of) for one in right]
    gaps = [_gap(one, mark) for one, mark in zip(right, marks, strict=True) if mark.any()]
    return float(np.mean(gaps)) if gaps else np.nan


def _around(label: str, wrong: Sequence[Wrong]) -> pd.DataFrame:
    offsets = np.arange(-AROUND, AROUND + 1)
    frames = []
    for name in ALONG:
        values = np.full((len(wrong), len(offsets)), np.nan)
        for i, one in enumerate(wrong):
            at = one.start + offsets
            there = (at >= 1) & (at < one.answer.steps)
            values[i, there] = one.answer.values[name][at[there]]
        found = interval_of_means(values)
        frames.append(found.assign(model=label, condition="answers that go wrong", metric=name, offset=offsets))
    columns = ["model", "condition", "metric", "offset", "mean", "mean_low", "mean_high", "n"]
    return pd.concat(frames).query("n > 0").reindex(columns=columns)
