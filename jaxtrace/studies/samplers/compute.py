"""`study samplers`: what different ways of drawing make of the same prompts, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from jaxtrace.figures.theme import Theme, dress, new_figure
from jaxtrace.grading.labels import label_of
from jaxtrace.grading.strings import Grade
from jaxtrace.schema import QUADRANTS
from jaxtrace.statistics.controls import residualize
from jaxtrace.statistics.differences import paired_difference
from jaxtrace.statistics.intervals import Estimate, interval
from jaxtrace.studies._shared.models import loaded
from jaxtrace.studies._shared.progress import SILENT, Progress
from jaxtrace.studies._shared.result import Picture, Result, Table
from jaxtrace.studies._shared.traces import traces_of
from jaxtrace.studies.samplers.answers import Sampled, run_samplers, runs_of
from jaxtrace.studies.samplers.settings import SamplersConfig

QUESTION = "What does a sampler change in answers, their uncertainty and length, and what does it cost?"
RESAMPLES = 1000
FIRST = next(iter(QUADRANTS))
COLOURS = ("#56b4e9", "#cc79a7", "#009e73", "#d55e00", "#e6c229")  # of Okabe and Ito, as the quadrants' in the report


def run_study(config: SamplersConfig, out: Path, progress: Progress = SILENT) -> Result:
    """Open the traces, or run every sampler on every model, and return the study's result.

    Raises:
      JaxtraceError: a setting, a trace, a prompt or a model is unusable.
    """
    if config.traces:
        return samplers(runs_of(traces_of(config, out, progress)), config)
    runs = {}
    for label, model, run in loaded(config):
        with progress.counter(label, "runs") as on_run:
            runs[label] = run_samplers(model, run, config, on_run)
    return samplers(runs, config)


def samplers(runs: Mapping[str, Sequence[Sampled]], config: SamplersConfig) -> Result:
    """The study of some models' runs, by label."""
    answers = pd.DataFrame([row for label, some in runs.items() for one in some for row in answers_of(label, one)])
    by_sampler = pd.DataFrame([row for label, some in runs.items() for row in summaries(label, some, answers, config)])
    tables = {
        "samplers": Table(
            by_sampler,
            "Means over n prompts and all seeds, with 95 % intervals from resampling prompts and seeds together. "
            "entropy (nats) and varentropy (nats²) are the model's own, at the steps that the sampler led to; "
            "length is in tokens. accuracy is by the task's rule, over prompts that have a known answer. "
            "tokens_per_second, of runs that the study made, has its interval over seeds.",
        ),
        "comparisons": Table(
            pd.DataFrame([row for label in runs for row in comparisons(label, answers, config)]),
            "Each sampler minus the first, over the n prompts where both have a value (means over seeds): difference, "
            "its size in standard deviations of the differences (Hedges' g), and p of a sign-change test. "
            "entropy_at_equal_length has the regression on ln(length) taken out.",
        ),
    }
    pictures = {
        "entropy": Picture(
            lambda theme: draw_entropy(by_sampler, theme),
            "Mean entropy of the model's distribution by sampler, with 95 % intervals over prompts and seeds.",
        )
    }
    if FIRST in answers:
        occupied = pd.DataFrame([row for label in runs for row in occupancy(label, answers, config)])
        tables["quadrants"] = Table(
            occupied, "Share of the steps at which a sampler that decides took each quadrant; intervals as above."
        )
        pictures["quadrants"] = Picture(
            lambda theme: draw_quadrants(occupied, theme), "Share of steps in each quadrant, by sampler."
        )
    tables["answers"] = Table(answers, "Every answer: one line for each prompt, sampler and seed.")
    return Result(
        study="samplers",
        question=QUESTION,
        tables=tables,
        pictures=pictures,
        notes=(
            "Text that a sampler drew differs from the others' from its first differing token on, so entropies are of "
            "different texts; longer texts weigh a prompt no more than short ones.",
            "tokens_per_second is of this machine, batch size and run, with whatever else it did.",
        ),
    )


def answers_of(label: str, run: Sampled) -> Iterator[dict[str, object]]:
    """A line for each prompt; `correct` is NaN where no answer is known."""
    for number, row in enumerate(run.rows):
        found = label_of(row).grade
        line: dict[str, object] = {
            "model": label,
            "sampler": run.sampler,
            "seed": run.seed,
            "prompt": row.prompt.id or str(number),
            "correct": np.nan if found == Grade.UNGRADED else float(found == Grade.CORRECT),
            "entropy": float(np.nanmean(row.metrics["entropy"])),
            "varentropy": float(np.nanmean(row.metrics["varentropy"])),
            "length": row.length,
        }
        if "quadrant" in row.metrics:
            took = row.metrics["quadrant"]
            shares = np.bincount(took[took >= 0], minlength=len(QUADRANTS)) / max((took >= 0).sum(), 1)
            line |= dict(zip(QUADRANTS, shares.tolist(), strict=True))
        yield line


def summaries(
    label: str, runs: Sequence[Sampled], answers: pd.DataFrame, config: SamplersConfig
) -> Iterator[dict[str, object]]:
    """A line for each sampler."""
    for name in dict.fromkeys(run.sampler for run in runs):
        own = [run for run in runs if run.sampler == name]
        tokens = answers[(answers.model == label) & (answers.sampler == name)].groupby("seed")["length"].sum()
        speeds = np.array([tokens[run.seed] / max(run.seconds, 1e-9) for run in own])
        line: dict[str, object] = {"model": label, "sampler": name, "n": len(own[0].rows), "seeds": len(own)}
        for column in ("accuracy", "entropy", "varentropy", "length"):
            values = crossed(label, name, {"accuracy": "correct"}.get(column, column), answers)
            line |= over_prompts_and_seeds(values, config.seed).columns(column)
        rng = np.random.default_rng(config.seed)
        again = speeds[rng.integers(len(speeds), size=(RESAMPLES, len(speeds)))].mean(axis=1)
        line |= interval(float(speeds.mean()), again, len(speeds)).columns("tokens_per_second")
        yield line


def comparisons(label: str, answers: pd.DataFrame, config: SamplersConfig) -> Iterator[dict[str, object]]:
    """A line for each sampler but the first, and each quantity; of the prompts where both have it, with every seed."""
    first, *others = answers[answers.model == label].sampler.unique()
    for name in others:
        values = {
            of: [crossed(label, one, column, answers) for one in (name, first)]
            for of, column in (("entropy", "entropy"), ("length", "length"), ("accuracy", "correct"))
        }
        there = {of: ~np.isnan(np.hstack(both)).any(axis=1) for of, both in values.items()}
        pairs = {of: [some[there[of]].mean(axis=1) for some in both] for of, both in values.items() if there[of].any()}
        if "entropy" in pairs:
            lengths = np.log(np.concatenate([some[there["entropy"]].mean(axis=1) for some in values["length"]]))
            pairs["entropy_at_equal_length"] = np.split(residualize(np.concatenate(pairs["entropy"]), lengths), 2)
        for column, (some, against) in pairs.items():
            found = paired_difference(some, against, seed=config.seed)
            line: dict[str, object] = {"model": label, "sampler": name, "against": first, "of": column}
            line |= found.difference.columns("difference") | found.effect.columns("effect")
            yield line | {"p": found.p, "n": found.n[0]}


def occupancy(label: str, answers: pd.DataFrame, config: SamplersConfig) -> Iterator[dict[str, object]]:
    """A line for each sampler that decides, and each quadrant."""
    own = answers[(answers.model == label) & answers[FIRST].notna()]
    for name in own.sampler.unique():
        for quadrant in QUADRANTS:
            share = over_prompts_and_seeds(crossed(label, name, quadrant, answers), config.seed)
            line: dict[str, object] = {"model": label, "sampler": name, "quadrant": quadrant, "n": share.n}
            yield line | share.columns("share")


def crossed(label: str, sampler: str, column: str, answers: pd.DataFrame) -> Float[np.ndarray, "P S"]:
    """A column's values by prompt and seed."""
    own = answers[(answers.model == label) & (answers.sampler == sampler)]
    return np.stack([np.asarray(some[column], float) for _, some in own.groupby("seed", sort=False)], axis=1)


def over_prompts_and_seeds(values: Float[np.ndarray, "P S"], seed: int) -> Estimate:
    """The mean of what is not NaN, with its interval from resampling rows and columns, each for itself."""
    values = _some(values)
    prompts, seeds = values.shape
    if not values.size:
        return Estimate(np.nan, np.nan, np.nan, 0)
    rng = np.random.default_rng(seed)
    picks = ((rng.integers(prompts, size=prompts), rng.integers(seeds, size=seeds)) for _ in range(RESAMPLES))
    return interval(float(values.mean()), [values[np.ix_(*pick)].mean() for pick in picks], prompts)


def _some(values: Float[np.ndarray, "P S"]) -> Float[np.ndarray, "P S"]:
    """Of the prompts that have values."""
    return values[~np.isnan(values).any(axis=1)]


def draw_entropy(table: pd.DataFrame, theme: Theme) -> Figure:
    """One line for each model and sampler."""
    figure = new_figure(theme, 7.0, 1.0 + 0.35 * len(table))
    axes, places = figure.subplots(), np.arange(len(table))[::-1]
    ends = np.array([table.entropy - table.entropy_low, table.entropy_high - table.entropy]).clip(0)
    axes.errorbar(table.entropy, places, xerr=ends, fmt="o", color=theme.first, capsize=3)
    axes.set_yticks(places, _labels(table))
    dress(axes, theme, "Entropy by sampler", "mean entropy (nats)")
    return figure


def draw_quadrants(table: pd.DataFrame, theme: Theme) -> Figure:
    """A bar for each model and sampler that decides."""
    shares = table.pivot_table(index=["model", "sampler"], columns="quadrant", values="share", sort=False)
    figure = new_figure(theme, 7.0, 1.6 + 0.4 * len(shares))
    axes, places, start = figure.subplots(), np.arange(len(shares))[::-1], np.zeros(len(shares))
    for quadrant, colour in zip(QUADRANTS, COLOURS, strict=True):
        axes.barh(places, shares[quadrant], left=start, color=colour, label=quadrant, height=0.6)
        start += shares[quadrant].to_numpy()
    axes.set_yticks(places, _labels(shares.reset_index()))
    axes.set_xlim(0, 1)
    dress(axes, theme, "Where the steps lie", "share of steps")
    axes.legend(
        frameon=False, fontsize=8, labelcolor=theme.ink, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.3)
    )
    return figure


def _labels(table: pd.DataFrame) -> list[str]:
    one = table.model.nunique() == 1
    return [name if one else f"{model}: {name}" for model, name in zip(table.model, table.sampler, strict=True)]
