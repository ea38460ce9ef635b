"""`study samplers`: how ways of sampling change answers to the same prompts, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxtrace.grading.labels import label_of
from jaxtrace.grading.strings import Grade
from jaxtrace.schema import QUADRANTS
from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.differences import paired_difference
from jaxtrace.statistics.intervals import (
    FEW,
    UNBOUNDED,
    Bounds,
    Estimate,
    bootstrap,
    exact_at_bound,
    interval,
    t_interval,
)
from jaxtrace.statistics.means import finite_mean
from jaxtrace.studies._shared.adjustment import adjusted_table
from jaxtrace.studies._shared.progress import Progress
from jaxtrace.studies._shared.result import EXAMPLES, Picture, Result, Table
from jaxtrace.studies._shared.traces import load_models, study_traces
from jaxtrace.studies.samplers.answers import SamplerRun, run_samplers, stored_runs
from jaxtrace.studies.samplers.figures import entropy_figure, quadrants_figure
from jaxtrace.studies.samplers.settings import SamplersConfig

QUESTION = "How does a sampler change answers, their uncertainty and length, and what does it cost?"
RESAMPLES = 1000
FIRST_QUADRANT = next(iter(QUADRANTS))
SAMPLERS_TEXT = (
    "Means over n prompts and all seeds, with 95 % intervals from resampling prompts and seeds together. entropy "
    "(nats) and varentropy (nats²) are the model's own, at the steps that the sampler reached; length is in tokens. "
    "accuracy follows the task's rule, over prompts with a known answer. tokens_per_second is known for runs that the "
    "study made; its interval is over seeds. Fewer than 10 prompts or seeds: t intervals, whose variance is the sum of "
    "that over prompts and that over seeds."
)
COMPARISONS_TEXT = (
    "Each sampler minus the first, over the n prompts for which both have a value (means over seeds): difference, its "
    "size in standard deviations of the differences (Hedges' g), and p of a sign-change test. entropy_at_equal_length "
    "has the regression on ln(length) removed."
)
NOTES = (
    "Two samplers' texts differ after their first different token, so entropies describe different texts; a prompt's "
    "weight does not depend on the length of its text.",
    "tokens_per_second describes this machine, batch size and run, and depends on the machine's other load.",
)


def run_study(config: SamplersConfig, out: Path, progress: Progress) -> Result:
    """Open the traces, or run every sampler on every model, and return the study's result."""
    if config.traces:
        return samplers(stored_runs(study_traces(config, out, progress)), config)
    runs = {}
    for label, model, run in load_models(config):
        with progress.counter(label, "answers") as on_answers:
            runs[label] = run_samplers(model, run, config, on_answers)
    return samplers(runs, config)


def samplers(runs: Mapping[str, Sequence[SamplerRun]], config: SamplersConfig) -> Result:
    """Return the study of models' runs, by label."""
    answers = pd.DataFrame(
        [line for label, of_model in runs.items() for run in of_model for line in answer_lines(label, run)]
    )
    by_sampler = pd.DataFrame(
        [line for label, of_model in runs.items() for line in _summaries(label, of_model, answers, config)]
    )
    compared = pd.DataFrame([line for label in runs for line in comparisons(label, answers, config)])
    summary = Table(by_sampler, SAMPLERS_TEXT)
    tables = {"samplers": summary, "comparisons": adjusted_table(compared, COMPARISONS_TEXT, "model")}
    pictures = {
        "entropy": Picture(
            partial(entropy_figure, by_sampler),
            "Mean entropy of the model's distribution by sampler, with 95 % intervals over prompts and seeds.",
            few=bool(by_sampler["entropy_few"].any()),
        )
    }
    if FIRST_QUADRANT in answers:
        shares = pd.DataFrame([line for label in runs for line in _quadrant_shares(label, answers, config)])
        tables["quadrants"] = quadrants = Table(
            shares, "Share of the steps in each quadrant, for samplers that decide by quadrant; intervals as above."
        )
        pictures["quadrants"] = Picture(
            partial(quadrants_figure, shares), "Share of steps in each quadrant, by sampler.", quadrants.few
        )
    tables["answers"] = Table(answers, "Every answer: one line per prompt, sampler and seed.", EXAMPLES)
    return Result("samplers", QUESTION, tables, pictures, (*_missing(answers), *NOTES))


def answer_lines(label: str, run: SamplerRun) -> Iterator[dict[str, object]]:
    """Yield a line per prompt; `correct` is NaN without a known answer."""
    for number, row in enumerate(run.rows):
        grade = label_of(row).grade
        line: dict[str, object] = {
            "model": label,
            "sampler": run.sampler,
            "seed": run.seed,
            "prompt": row.prompt.id or str(number),
            "correct": np.nan if grade == Grade.UNGRADED else float(grade == Grade.CORRECT),
            "entropy": float(finite_mean(row.metrics["entropy"])),
            "varentropy": float(finite_mean(row.metrics["varentropy"])),
            "length": row.length,
        }
        if "quadrant" in row.metrics:
            quadrants = row.metrics["quadrant"]
            decided = quadrants[quadrants >= 0]
            shares = np.bincount(decided, minlength=len(QUADRANTS)) / max(len(decided), 1)
            line |= dict(zip(QUADRANTS, shares.tolist(), strict=True))
        yield line


def _summaries(
    label: str, runs: Sequence[SamplerRun], answers: pd.DataFrame, config: SamplersConfig
) -> Iterator[dict[str, object]]:
    """Yield a line per sampler."""
    for name in dict.fromkeys(run.sampler for run in runs):
        of_sampler = [run for run in runs if run.sampler == name]
        tokens = answers[(answers.model == label) & (answers.sampler == name)].groupby("seed")["length"].sum()
        speeds = np.array([tokens[run.seed] / max(run.seconds, 1e-9) for run in of_sampler])
        line: dict[str, object] = {"model": label, "sampler": name}
        line |= {"n": len(of_sampler[0].rows), "seeds": len(of_sampler)}
        for column in ("accuracy", "entropy", "varentropy", "length"):
            values = _by_prompt_and_seed(label, name, {"accuracy": "correct"}.get(column, column), answers)
            bounds = (0.0, 1.0 if column == "accuracy" else np.inf)
            line |= over_prompts_and_seeds(values, config.seed, bounds).columns(column)
        yield line | bootstrap(np.mean, speeds, bounds=(0.0, np.inf), seed=config.seed).columns("tokens_per_second")


def comparisons(label: str, answers: pd.DataFrame, config: SamplersConfig) -> Iterator[dict[str, object]]:
    """Yield a line per sampler but the first and per quantity, over prompts with values of both at every seed."""
    first, *others = answers[answers.model == label].sampler.unique()
    for name in others:
        values = {
            quantity: [_by_prompt_and_seed(label, sampler, column, answers) for sampler in (name, first)]
            for quantity, column in (("entropy", "entropy"), ("length", "length"), ("accuracy", "correct"))
        }
        complete = {quantity: ~np.isnan(np.hstack(both)).any(axis=1) for quantity, both in values.items()}
        pairs = {
            quantity: [of_sampler[complete[quantity]].mean(axis=1) for of_sampler in both]
            for quantity, both in values.items()
            if complete[quantity].any()
        }
        if "entropy" in pairs:
            lengths = [of_sampler[complete["entropy"]].mean(axis=1) for of_sampler in values["length"]]
            residuals = residualize(np.concatenate(pairs["entropy"]), np.log(np.concatenate(lengths)))
            pairs["entropy_at_equal_length"] = np.split(residuals, 2)
        for quantity, (of_sampler, of_first) in pairs.items():
            gap = paired_difference(of_sampler, of_first, seed=config.seed)
            keys = {"model": label, "sampler": name, "against": first, "of": quantity}
            yield {**keys, **gap.columns("effect")}


def _missing(answers: pd.DataFrame) -> Iterator[str]:
    """Yield a note on each model with answers whose entropy is unknown."""
    for label, of_model in answers.groupby("model", sort=False):
        if missing := int(of_model.entropy.isna().sum()):
            yield (
                f"{label}: {missing} of {len(of_model)} answers have no finite entropy, because logits are not finite; "
                "the means of entropy and varentropy are over the others."
            )


def _quadrant_shares(label: str, answers: pd.DataFrame, config: SamplersConfig) -> Iterator[dict[str, object]]:
    """Yield a line per quadrant and per sampler that decides by quadrant."""
    deciding = answers[(answers.model == label) & answers[FIRST_QUADRANT].notna()].sampler.unique()
    for name in deciding:
        for quadrant in QUADRANTS:
            values = _by_prompt_and_seed(label, name, quadrant, answers)
            share = over_prompts_and_seeds(values, config.seed, (0.0, 1.0))
            keys = {"model": label, "sampler": name, "quadrant": quadrant, "n": share.n}
            yield {**keys, **share.columns("share")}


def _by_prompt_and_seed(label: str, sampler: str, column: str, answers: pd.DataFrame) -> Float[np.ndarray, "P S"]:
    of_sampler = answers[(answers.model == label) & (answers.sampler == sampler)]
    return np.stack([np.asarray(rows[column], float) for _, rows in of_sampler.groupby("seed", sort=False)], axis=1)


def over_prompts_and_seeds(values: Float[np.ndarray, "P S"], seed: int, bounds: Bounds = UNBOUNDED) -> Estimate:
    """Return the mean over prompts without NaN, with its interval over prompts and seeds.

    It resamples both independently (Owen 2007). If either are few, the variances over prompts and over seeds are added
    up; a single seed has none.
    """
    values = values[~np.isnan(values).any(axis=1)]
    prompts, seeds = values.shape
    if not values.size:
        return Estimate(np.nan, np.nan, np.nan, 0)
    if min(prompts, seeds) < FEW:
        of_prompts, of_seeds = values.mean(axis=1), values.mean(axis=0)
        factors = [(x.sum() - x) / max(len(x) - 1, 1) for x in (of_prompts, of_seeds) if len(x) > 1 or x is of_prompts]
        estimate = t_interval(float(values.mean()), *factors, bounds=bounds)
        return exact_at_bound(replace(estimate, n=prompts, fewest=None), bounds)
    rng = np.random.default_rng(seed)
    picks = ((rng.integers(prompts, size=prompts), rng.integers(seeds, size=seeds)) for _ in range(RESAMPLES))
    resampled = [values[np.ix_(*pick)].mean() for pick in picks]
    return exact_at_bound(interval(float(values.mean()), resampled, prompts, bounds=bounds), bounds)
