"""`study patterns`: attention entropy of answers under different conditions, by step, layer and head.

After keell0renz/llm-entropy-patterns, which planned it for factual and creative requests, for right and wrong answers
of SimpleQA and GSM8K, and for the tokens of a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from jaxtrace.errors import StudyError, few
from jaxtrace.grading.labels import labels_for
from jaxtrace.grading.strings import Grade
from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.means import finite_mean
from jaxtrace.studies._shared.adjustment import adjusted_table
from jaxtrace.studies._shared.labels import row_labels
from jaxtrace.studies._shared.progress import Progress
from jaxtrace.studies._shared.result import Picture, Result
from jaxtrace.studies._shared.traces import single_runs, study_traces
from jaxtrace.studies.patterns.comparisons import UNPAIRED, Lines, compare_lines, pairing, pairing_notes
from jaxtrace.studies.patterns.figures import heads_figure, layers_figure, steps_figure
from jaxtrace.studies.patterns.settings import PatternsConfig
from jaxtrace.studies.patterns.tables import conditions_table, heads_table, layers_table, steps_table
from jaxtrace.studies.patterns.trajectories import Trajectory, attention_notes, trajectories, without_ln_keys
from jaxtrace.studies.patterns.wrong_steps import wrong_steps
from jaxtrace.traces.trace import Trace

GRADE, WRONG_STEP = "grade", "wrong_step"
OUTCOMES = (GRADE, "correctness")  # not designed, so that prompts do not come in pairs of them
RIGHT = "correct or not attempted"
CONDITIONS = {Grade.CORRECT: RIGHT, Grade.NOT_ATTEMPTED: RIGHT, Grade.INCORRECT: "incorrect", Grade.UNGRADED: None}
NORMALISED = "attention_entropy_normalized"

COMPARISONS_TEXT = (
    "Differences of prompt means (first condition minus second) over the steps after 0: in the metric's unit, as "
    "Hedges' g, and as the probability that an answer of the first has the larger value (AUROC), with 95 % intervals "
    "over prompts. p comes from a permutation test. Where prompts of the conditions come in pairs, such as two "
    "requests about a topic, paired names what they share: differences within pairs, g in their standard deviations, "
    "intervals over pairs, and a test that changes their signs. ln_keys and steps show how far the conditions differ "
    "in length. n_first and n_second count answers with a finite value; a metric without any is absent."
)
STEP_ZERO_TEXT = (
    "The same differences at step 0, which attends to the prompt alone. row_entropy and row_entropy_var are mean and "
    "variance over the prompt's positions, if these were traced."
)
STEPS_TEXT = (
    "Attention entropy and varentropy along the steps: means over layers, heads and the answers that reach the step, "
    "with 95 % intervals over prompts; left, the residual of its regression on ln(keys). Step 0, the prompt's own, "
    "stands apart; beyond the dotted line, fewer than half of the answers of some condition continue."
)
LAYERS_TEXT = (
    "Attention entropy and varentropy by layer, means over answers and the steps after 0; the band is one standard "
    "deviation over heads to either side."
)
NOTES = (
    "A step's metrics belong to the position that draws its token. Samples of one prompt count as one unit in "
    "intervals and tests.",
    "attention_entropy / ln(keys) is no clean control for length: it can rise or fall along a text where the residual "
    "of the regression on ln(keys) does neither. Read the residual, 'ln(keys) removed', first.",
    "llm-entropy-patterns calls the variance over query rows varentropy. A decode step has one query row, so that it "
    "is 0 there by definition; attention_varentropy is the varentropy of the weights.",
    "Removing ln(keys) by regression also removes effects that a condition has only through longer answers; if lengths "
    "hardly overlap, no control can separate the two.",
)


def run_study(config: PatternsConfig, out: Path, progress: Progress) -> Result:
    """Open or make the traces and return the study's result."""
    return patterns(study_traces(config, out, progress), config)


def patterns(traces: Mapping[str, Trace], config: PatternsConfig) -> Result:
    """Compare attention entropies of answers between conditions, or around the first wrong step.

    Means over layers and heads are averaged over the steps after 0, answer by answer; prompts are the unit of all
    intervals and tests. Attention entropy grows with ln(keys), so each comparison is repeated on steps that the
    conditions share, on residuals of a regression on ln(keys), and on metrics without that growth.

    Args:
      traces: generated traces with attention probes, by label.

    Raises:
      StudyError: a trace lacks probes or holds given text, there are fewer than two conditions or than two prompts of
        one, or no answer is longer than a token.
    """
    if config.by == WRONG_STEP:
        return wrong_steps(traces, config.labels, seed=config.seed, resamples=config.resamples)
    answers, pairs, notes = {}, {}, []
    for label, trace in traces.items():
        every = _answers(label, trace, config)
        answers[label] = _chosen(label, every, config.conditions)
        pairs[label] = UNPAIRED if config.by in OUTCOMES else pairing(_of_conditions(every, answers[label]))
        if excluded := len(trace.rows) - len(answers[label]):
            notes.append(
                f"{label}: {excluded} of {len(trace.rows)} answers are not compared: without a condition, or one token."
            )
        notes += [f"{label}: {note}" for note in pairing_notes(answers[label], pairs[label])]
        notes += attention_notes(label, trace, answers[label])
    matched = {label: _matched(of_trace) for label, of_trace in answers.items()}
    notes += [f"{label}: steps 1 to {steps} count as matched." for label, steps in matched.items()]
    along, by_layer, by_head = steps_table(answers), layers_table(answers, traces), heads_table(answers, traces)
    lines = {
        label: (_comparisons(of_trace, matched[label]), _step_zero(of_trace)) for label, of_trace in answers.items()
    }
    compared, at_first = (
        adjusted_table(
            pd.concat(
                compare_lines(label, of_trace, lines[label][i], pairs[label], config)
                for label, of_trace in answers.items()
            ),
            text,
            "model",
        )
        for i, text in enumerate((COMPARISONS_TEXT, STEP_ZERO_TEXT))
    )
    return Result(
        "patterns",
        f"Does attention entropy differ by {config.by}?",
        {
            "conditions": conditions_table(answers),
            "comparisons": compared,
            "step_zero": at_first,
            "steps": along,
            "layers": by_layer,
            "heads": by_head,
        },
        {
            "steps": Picture(partial(steps_figure, along.frame, matched), STEPS_TEXT, along.few),
            "layers": Picture(partial(layers_figure, by_layer.frame), LAYERS_TEXT, by_layer.few),
            "heads": Picture(
                partial(heads_figure, by_head.frame),
                "Attention entropy by layer, with one line per head.",
                by_layer.few,
            ),
        },
        (*notes, *NOTES),
    )


def _answers(label: str, trace: Trace, config: PatternsConfig) -> list[Trajectory]:
    if config.by == GRADE:
        grades = [row_label.grade for row_label in labels_for(trace.rows, config.labels)]
        return trajectories(label, trace, [CONDITIONS[grade] for grade in grades])
    condition = row_labels({label: trace}, config.by, config.labels)
    runs = single_runs({label: trace}).values()
    return trajectories(label, trace, [condition(run, row) for run in runs for row in run.rows])


def _chosen(label: str, answers: Sequence[Trajectory], conditions: Sequence[str]) -> list[Trajectory]:
    """Return the answers of the conditions compared, condition by condition."""
    known = sorted({answer.condition for answer in answers})
    if missing := [name for name in conditions if name not in known]:
        raise StudyError(f"{label}: no answer is of condition '{missing[0]}'; choose from: {few(known, most=20)}")
    names = list(dict.fromkeys(conditions or known))
    if len(names) < 2:
        what = f"only '{names[0]}'" if names else "none"
        raise StudyError(
            f"{label}: two conditions are needed, and it has {what}; trace prompts of both, give a sweep over both, or "
            "change --by"
        )
    chosen = [answer for name in names for answer in answers if answer.condition == name and answer.steps > 1]
    for name in names:
        count = sum(answer.condition == name for answer in chosen)
        if count < 2:
            raise StudyError(f"{label}: {count} answers of '{name}' continue after step 0; give at least two of each")
    return chosen


def _of_conditions(answers: Sequence[Trajectory], chosen: Sequence[Trajectory]) -> list[Trajectory]:
    names = {answer.condition for answer in chosen}
    return [answer for answer in answers if answer.condition in names]


def _matched(answers: Sequence[Trajectory]) -> int:
    """Return the last step that at least half of the answers of every condition reach."""
    last = pd.Series([answer.steps - 1 for answer in answers])
    return int(last.groupby([answer.condition for answer in answers]).quantile(0.5, interpolation="lower").min())


def _comparisons(answers: Sequence[Trajectory], matched: int) -> Lines:
    """Return a value per answer for each metric and control."""
    lines: Lines = {}
    along_steps = {name: [answer.after_first(name) for answer in answers] for name in answers[0].values}
    along_steps["ln_keys"] = [answer.ln_keys[1:] for answer in answers]
    for name, series in along_steps.items():
        if name not in (NORMALISED, "ln_keys"):
            lines[name, "ln(keys) removed"] = _means(without_ln_keys(series, answers))
        lines[name, "none"] = _means(series)
        lines[name, "matched steps"] = _means([of_answer[:matched] for of_answer in series])
    lines["steps", "none"] = np.array([float(answer.steps) for answer in answers])
    return lines


def _step_zero(answers: Sequence[Trajectory]) -> Lines:
    keys = np.array([answer.ln_keys[0] for answer in answers])
    at_first = {name: np.array([answer.values[name][0] for answer in answers]) for name in answers[0].values}
    at_first |= {name: np.array([answer.prompt[name] for answer in answers]) for name in answers[0].prompt}
    lines: Lines = {}
    for name, values in at_first.items():
        if name != NORMALISED:
            lines[name, "ln(keys) removed"] = residualize(values, keys)
        lines[name, "none"] = values
    lines["ln_keys", "none"] = keys
    return lines


def _means(series: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([finite_mean(values) for values in series])
