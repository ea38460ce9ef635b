"""Comparisons of answers between conditions, within pairs of prompts where these come in pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from jaxtrace.errors import StudyError
from jaxtrace.statistics.differences import Difference, difference, paired_difference
from jaxtrace.statistics.intervals import Draws, estimate_columns
from jaxtrace.statistics.ranking import auroc
from jaxtrace.studies.patterns.settings import PatternsConfig
from jaxtrace.studies.patterns.trajectories import Trajectory, prompt_numbers

# (metric, control) → a value per answer
Lines = dict[tuple[str, str], np.ndarray]


UNPAIRED = ""


def pairing(answers: Sequence[Trajectory]) -> str:
    """Return what prompts of different conditions share one by one: "topic", "story", "question" or "prompt".

    It is `UNPAIRED` unless most topics have prompts of all conditions, and those have as many of each.
    """
    frame = pd.DataFrame({"pair": [answer.pair for answer in answers], "group": prompt_numbers(answers)})
    frame["condition"] = [answer.condition for answer in answers]
    prompts = frame.drop_duplicates().groupby(["pair", "condition"]).size().unstack()
    complete = prompts.dropna()
    if len(complete) < 2 or len(complete) <= len(prompts) / 2 or (complete.nunique(axis=1) > 1).any():
        return UNPAIRED
    return str(complete.index[0]).split(" ", 1)[0]


def pairing_notes(answers: Sequence[Trajectory], key: str) -> Iterator[str]:
    """Yield a note on the pairs, if there are any."""
    if key != UNPAIRED:
        conditions = pd.Series([answer.condition for answer in answers])
        counts = conditions.groupby([answer.pair for answer in answers]).nunique()
        missing = int((counts < conditions.nunique()).sum())
        yield (
            f"compared within pairs, by {key}; {missing} of {len(counts)} lack an answer of some condition, and are "
            "excluded from comparisons with it."
        )


def compare_lines(
    label: str, answers: Sequence[Trajectory], lines: Lines, key: str, config: PatternsConfig
) -> pd.DataFrame:
    """Return a row per line and pair of conditions.

    Args:
      answers: answers of one model.
      key: see `pairing`.

    Raises:
      StudyError: no line is finite in two conditions.
    """
    conditions = np.array([answer.condition for answer in answers])
    units = np.array([answer.pair for answer in answers]) if key else prompt_numbers(answers)
    settings = Draws(seed=config.seed, resamples=config.resamples)
    rows = []
    for first, second in combinations(dict.fromkeys(conditions), 2):
        for (metric, control), values in lines.items():
            known = np.isfinite(values)
            a, b = known & (conditions == first), known & (conditions == second)
            if key:
                both = np.intersect1d(units[a], units[b])
                a, b = a & np.isin(units, both), b & np.isin(units, both)
            if not (a.any() and b.any()):
                continue
            gap = _difference(values, a, b, units, settings, paired=bool(key))
            ranked = auroc(a[a | b], values[a | b], groups=units[a | b], **settings)
            row = {"model": label, "metric": metric, "control": control, "comparison": f"{first} − {second}"}
            row |= estimate_columns({"difference": gap.difference, "g": gap.effect, "auroc": ranked})
            rows.append(row | {"p": gap.p, "paired": key or "no", "n_first": gap.n[0], "n_second": gap.n[1]})
    if not rows:
        raise StudyError(f"{label}: no attention metric is finite in two conditions; trace another model")
    return pd.DataFrame(rows)


def _difference(
    values: np.ndarray, a: np.ndarray, b: np.ndarray, units: np.ndarray, settings: Draws, *, paired: bool
) -> Difference:
    if paired:
        first, second = (pd.Series(values[rows]).groupby(units[rows]).mean().to_numpy() for rows in (a, b))
        return paired_difference(first, second, **settings)
    return difference(values[a], values[b], groups_a=units[a], groups_b=units[b], **settings)
