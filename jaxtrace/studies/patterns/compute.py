"""Attention entropy of answers under different conditions: step by step, by layer, by head, and compared.

After keell0renz/llm-entropy-patterns, which planned it for factual and creative requests, for right and wrong answers
of SimpleQA and GSM8K, and for the tokens of a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from jaxtrace.errors import StudyError
from jaxtrace.grading.labels import labels_for
from jaxtrace.grading.strings import Grade
from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.differences import difference
from jaxtrace.statistics.ranking import auroc
from jaxtrace.studies._shared.labels import labelling
from jaxtrace.studies._shared.progress import SILENT, Progress
from jaxtrace.studies._shared.result import Picture, Result, Table
from jaxtrace.studies._shared.traces import traces_of
from jaxtrace.studies.patterns import figures as pictures
from jaxtrace.studies.patterns import tables
from jaxtrace.studies.patterns.settings import PatternsConfig
from jaxtrace.studies.patterns.trajectories import Trajectory, trajectories
from jaxtrace.studies.patterns.wrong_steps import wrong_steps
from jaxtrace.traces.trace import Trace

GRADE, WRONG_STEP = "grade", "wrong_step"
RIGHT = "correct or not attempted"
CONDITIONS = {Grade.CORRECT: RIGHT, Grade.NOT_ATTEMPTED: RIGHT, Grade.INCORRECT: "incorrect", Grade.UNGRADED: None}
NORMALISED = "attention_entropy_normalized"
Values = Mapping[str, np.ndarray]


def run_study(config: PatternsConfig, out: Path, progress: Progress = SILENT) -> Result:
    """Open or make the traces and return the study's result.

    Raises:
      JaxtraceError: a setting, a trace, a prompt or a model is unusable.
    """
    return patterns(traces_of(config, out, progress), config)


def patterns(traces: Mapping[str, Trace], config: PatternsConfig) -> Result:
    """Compares attention entropies of answers between conditions, or around the first wrong step.

    Means over layers and heads are averaged over the steps after step 0, answer by answer; prompts are the unit of all
    intervals and tests. As attention entropy grows with ln(keys), each comparison is made again on steps that the
    conditions share, on what a regression on ln(keys) leaves, and on metrics without that growth.

    Args:
      traces: by label; generated, with attention probes.
      config: what is compared.

    Raises:
      StudyError: a trace lacks probes or is of given text, there are fewer than two conditions or than two prompts of
        one, or no answer is longer than a token.
    """
    if config.by == WRONG_STEP:
        return wrong_steps(traces, config.labels, seed=config.seed, resamples=config.resamples)
    found, notes = {}, []
    for label, trace in traces.items():
        found[label] = _chosen(label, _answers(label, trace, config), config.conditions)
        if left := len(trace.rows) - len(found[label]):
            notes.append(
                f"{label}: {left} of {len(trace.rows)} answers are not compared: of no condition, or of one token."
            )
    matched = {label: _matched(answers) for label, answers in found.items()}
    notes += [f"{label}: steps 1 to {steps} are those that count as matched." for label, steps in matched.items()]
    along, by_layer, by_head = tables.steps(found), tables.layers(found, traces), tables.heads(found, traces)
    compared = pd.concat([_compared(label, answers, matched[label], config) for label, answers in found.items()])
    at_first = pd.concat([_at_first(label, answers, config) for label, answers in found.items()])
    return Result(
        "patterns",
        f"Does attention entropy differ by {config.by}?",
        {
            "conditions": tables.conditions(found),
            "comparisons": Table(compared, COMPARED),
            "step_zero": Table(at_first, AT_FIRST),
            "steps": along,
            "layers": by_layer,
            "heads": by_head,
        },
        {
            "steps": Picture(partial(pictures.steps, along.frame, matched), ALONG_TEXT),
            "layers": Picture(partial(pictures.layers, by_layer.frame), LAYERS_TEXT),
            "heads": Picture(
                partial(pictures.heads, by_head.frame), "Attention entropy by layer, a line for each head."
            ),
        },
        (*notes, *NOTES),
    )


COMPARED = (
    "Differences of prompt means (first condition minus second) over the steps after 0: in the metric's unit, as "
    "Hedges' g, and as the probability that an answer of the first has the larger value (AUROC), with 95 % intervals "
    "over prompts. p is of a permutation test; p_adjusted is after Benjamini and Hochberg over a model's lines. "
    "ln_keys and steps say how far the conditions differ in length."
)
AT_FIRST = (
    "The same at step 0, whose attention sees the prompt alone. row_entropy and row_entropy_var are the mean and the "
    "variance over the prompt's positions, where these were traced."
)
ALONG_TEXT = (
    "Attention entropy and varentropy along the steps: means over layers, heads and answers still alive, with 95 % "
    "intervals. Step 0, the prompt's own, stands apart; past the dotted line fewer than half of the answers of some "
    "condition go on."
)
LAYERS_TEXT = (
    "Attention entropy and varentropy by layer, means over answers and the steps after 0; the band is one standard "
    "deviation over heads to either side."
)
NOTES = (
    "A step's metrics are of the position that draws its token. Samples of one prompt are resampled and permuted "
    "together where conditions are compared; intervals along steps and layers take answers as independent.",
    "The study that this follows calls the variance over query rows varentropy. A decode step has one query row, so "
    "that it is 0 there by definition; attention_varentropy is that of the weights.",
    "To remove ln(keys) by regression removes with it what a condition owes to longer answers alone; where lengths "
    "hardly overlap, no control can part the two.",
)


def _answers(label: str, trace: Trace, config: PatternsConfig) -> list[Trajectory]:
    if config.by == GRADE:
        return trajectories(label, trace, [CONDITIONS[one.grade] for one in labels_for(trace.rows, config.labels)])
    condition = labelling({label: trace}, config.by, config.labels)
    return trajectories(label, trace, [condition(trace, row) for row in trace.rows])


def _chosen(label: str, answers: Sequence[Trajectory], wanted: Sequence[str]) -> list[Trajectory]:
    """The answers of the conditions compared, condition by condition."""
    there = sorted({one.condition for one in answers})
    if missing := [name for name in wanted if name not in there]:
        raise StudyError(f"{label}: no answer is of condition '{missing[0]}'; there are: {', '.join(there)}")
    names = list(dict.fromkeys(wanted or there))
    if len(names) < 2:
        what = f"only '{names[0]}'" if names else "none"
        raise StudyError(f"{label}: two conditions are needed, there is {what}; trace prompts of both, or mend --by")
    chosen = [one for name in names for one in answers if one.condition == name and one.steps > 1]
    for name in names:
        count = sum(one.condition == name for one in chosen)
        if count < 2:
            raise StudyError(f"{label}: {count} answers of '{name}' go on after step 0; give two at least of each")
    return chosen


def _matched(answers: Sequence[Trajectory]) -> int:
    """The last step that at least half of the answers of every condition reach."""
    lengths = {
        one.condition: [other.steps - 1 for other in answers if other.condition == one.condition] for one in answers
    }
    return min(int(np.quantile(of, 0.5, method="lower")) for of in lengths.values())


def _compared(label: str, answers: Sequence[Trajectory], matched: int, config: PatternsConfig) -> pd.DataFrame:
    """One line for each metric, control and pair of conditions."""
    tokens = np.concatenate([one.ln_keys[1:] for one in answers])
    ends = np.cumsum([one.steps - 1 for one in answers])[:-1]
    lines: dict[tuple[str, str], np.ndarray] = {}
    for name in answers[0].values:
        series = [one.values[name][1:] for one in answers]
        lines[name, "none"] = _means(series)
        lines[name, "matched steps"] = _means([one[:matched] for one in series])
        if name != NORMALISED:
            lines[name, "ln(keys) removed"] = _means(np.split(residualize(np.concatenate(series), tokens), ends))
    keys = [one.ln_keys[1:] for one in answers]
    lines["ln_keys", "none"] = _means(keys)
    lines["ln_keys", "matched steps"] = _means([one[:matched] for one in keys])
    lines["steps", "none"] = np.array([float(one.steps) for one in answers])
    return _lines(label, answers, lines, config)


def _at_first(label: str, answers: Sequence[Trajectory], config: PatternsConfig) -> pd.DataFrame:
    keys = np.array([one.ln_keys[0] for one in answers])
    lines: dict[tuple[str, str], np.ndarray] = {}
    for name in answers[0].values:
        values = np.array([one.values[name][0] for one in answers])
        lines[name, "none"] = values
        if name != NORMALISED:
            lines[name, "ln(keys) removed"] = residualize(values, keys)
    for name in answers[0].prompt:
        lines[name, "none"] = np.array([one.prompt[name] for one in answers])
        lines[name, "ln(keys) removed"] = residualize(lines[name, "none"], keys)
    lines["ln_keys", "none"] = keys
    return _lines(label, answers, lines, config)


def _lines(
    label: str, answers: Sequence[Trajectory], lines: Mapping[tuple[str, str], np.ndarray], config: PatternsConfig
) -> pd.DataFrame:
    of = np.array([one.condition for one in answers])
    groups = np.array([one.group for one in answers])
    samples = len(np.unique(groups)) < len(groups)
    found = []
    for first, second in combinations(dict.fromkeys(of), 2):
        a, b = of == first, of == second
        both = a | b
        for (metric, control), values in lines.items():
            repeated = {"groups_a": groups[a], "groups_b": groups[b]} if samples else {}
            settings = {"seed": config.seed, "resamples": config.resamples}
            gap = difference(values[a], values[b], **repeated, **settings)
            ranked = auroc(a[both], values[both], groups=groups[both] if samples else None, **settings)
            row = {"model": label, "metric": metric, "control": control, "comparison": f"{first} − {second}"}
            for name, estimate in (("difference", gap.difference), ("g", gap.effect), ("auroc", ranked)):
                row |= estimate.columns(name)
            found.append(row | {"p": gap.p, "n_first": gap.n[0], "n_second": gap.n[1]})
    frame = pd.DataFrame(found)
    return frame.assign(p_adjusted=false_discovery_control(frame["p"]))


def _means(series: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([one.mean() for one in series])
