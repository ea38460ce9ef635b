"""`study interventions`: what a model loses without the layers that widen or prune its prediction the most."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from jaxtrace.errors import StudyError
from jaxtrace.figures.theme import Theme, dress, legend, new_figure, whole_numbers
from jaxtrace.model import Model
from jaxtrace.models.interventions import Interventions
from jaxtrace.statistics.differences import paired_difference
from jaxtrace.statistics.intervals import bootstrap
from jaxtrace.studies._shared.models import loaded
from jaxtrace.studies._shared.progress import SILENT, OnCount, Progress
from jaxtrace.studies._shared.result import Picture, Result, Table
from jaxtrace.studies.expansion.compute import measure_expansions
from jaxtrace.studies.interventions.kept_answers import Kept
from jaxtrace.studies.interventions.settings import InterventionsConfig
from jaxtrace.studies.interventions.single_token_choices import Answers, Question, answer, questions_of

QUESTION = "Does a model lose more without its expanding or pruning layers than without layers taken at random?"
Kind = Literal["none", "expansion", "pruning", "random"]


@dataclass(frozen=True)
class Skipped:
    """A set of layers, and what the model answers without them.

    Attributes:
      kind: how they were chosen.
      edges: whether the first and the last layer could be chosen.
      layers: that are left out, from 1.
      answers: to the questions that were not held out.
    """

    kind: Kind
    edges: bool
    layers: tuple[int, ...]
    answers: Answers


@dataclass(frozen=True)
class Measured:
    """What became of one model.

    Attributes:
      expansion: mean ΔH of the layers 1 to L over the questions held out, nats.
      held_out: how many these were.
      chance: accuracy of guessing.
      whole: its answers with no layer left out.
      skipped: every set of layers.
    """

    expansion: Float[np.ndarray, " L"]
    held_out: int
    chance: float
    whole: Answers
    skipped: tuple[Skipped, ...]


def measure_interventions(
    model: Model,
    questions: Sequence[Question],
    config: InterventionsConfig,
    on_set: OnCount = lambda *_: None,
    folder: Path | None = None,
) -> Measured:
    """Chooses layers by ΔH on some of the questions, and asks the others without them.

    Args:
      model: with the logit lens or a tuned one.
      questions: from `questions_of`.
      config: of the study.
      on_set: told how many different sets of layers have been left out, and how many there are.
      folder: where the answers are kept, so that a study that was stopped goes on.

    Raises:
      StudyError: too few questions to hold some out, or too few layers to leave so many out.
    """
    held_out = round(config.held_out * len(questions))
    if not 0 < held_out < len(questions):
        raise StudyError(f"{len(questions)} questions of which {held_out} are held out; give more, or another held_out")
    if max(config.counts) > model.config.layers or min(config.counts) < 1:
        raise StudyError(f"counts {list(config.counts)}: give numbers of layers from 1 to {model.config.layers}")
    order = np.random.default_rng(config.seed).permutation(len(questions))
    first, rest = ([questions[i] for i in part] for part in np.split(order, [held_out]))
    pairs = [(question.prompt, question.tokens) for question in first]
    change = measure_expansions(model, pairs, config.mass, config.batch_size).change.mean(0)
    wanted = list(chosen_sets(change, config))
    kept = None if folder is None else Kept.at(folder, model, rest)
    found: dict[tuple[int, ...], Answers] = {}
    different = {(), *(layers for *_, layers in wanted)}
    for number, layers in enumerate(sorted(different), 1):
        masks = Interventions.of(model.config, layers)
        ask = functools.partial(answer, model, rest, masks, config.batch_size)
        found[layers] = ask() if kept is None else kept.answers(layers, ask)
        on_set(number, len(different))
    chance = float(np.mean([1 / len(question.options) for question in rest]))
    skipped = tuple(Skipped(kind, edges, layers, found[layers]) for kind, edges, layers in wanted)
    return Measured(change, held_out, chance, found[()], skipped)


def chosen_sets(
    change: Float[np.ndarray, " L"], config: InterventionsConfig
) -> Iterator[tuple[Kind, bool, tuple[int, ...]]]:
    """(how they were chosen, whether the edges could be, layers ascending) of every set that is to be left out.

    `change` is the mean ΔH of the layers 1 to L. Counts for which there are too few layers between the edges are left
    out.
    """
    for edges in (True, False):
        allowed = np.arange(1, len(change) + 1) if edges else np.arange(2, len(change))
        rising = allowed[np.argsort(change[allowed - 1], kind="stable")]
        for count in config.counts:
            if count > len(allowed):
                continue
            yield "expansion", edges, _ascending(rising[-count:])
            yield "pruning", edges, _ascending(rising[:count])
            for draw in range(config.draws):
                rng = np.random.default_rng((config.seed, draw, count, edges))
                yield "random", edges, _ascending(rng.choice(allowed, count, replace=False))


def run_study(config: InterventionsConfig, out: Path, progress: Progress = SILENT) -> Result:
    """Ask every model without each set of layers, keep the answers in `out`/answers, and return the study's result.

    Raises:
      JaxtraceError: a setting, a prompt, a model or a lens is unusable.
    """
    measured = {}
    for label, model, run in loaded(config, config.lens):
        questions = questions_of(model, run.load_prompts(), config.options)
        with progress.counter(label, "sets of layers") as on_set:
            folder = out / "answers" / Path(label).name
            measured[label] = measure_interventions(model, questions, config, on_set, folder)
    return interventions(measured, config)


def interventions(measured: Mapping[str, Measured], config: InterventionsConfig) -> Result:
    """The study of some models' measurements, by label."""
    compared = [row for label, some in measured.items() for row in comparisons_of(label, some, config)]
    accuracy = pd.DataFrame([row for label, some in measured.items() for row in accuracies_of(label, some, config)])
    layers = [
        {"model": label, "layer": i, "expansion": value, "n": some.held_out}
        for label, some in measured.items()
        for i, value in enumerate(some.expansion, 1)
    ]
    return Result(
        study="interventions",
        question=QUESTION,
        tables={
            "accuracy": Table(
                accuracy,
                "Accuracy over n questions with k layers skipped, by how they were chosen; edges says whether layers 1 "
                "and L could be. option_entropy (nats) is that of the options among themselves, entropy that of the "
                "next token. Random sets are averaged question by question: sets counts the different ones, sd is the "
                "standard deviation of their accuracies.",
            ),
            "comparisons": Table(
                pd.DataFrame(compared),
                "Differences in accuracy on the same n questions: over skipping nothing, and over the mean of the "
                "random sets of as many layers. effect is the standardised mean difference, p that of a sign-change "
                "test of this comparison alone. Intervals are over questions, for the random sets as they were drawn.",
            ),
            "layers": Table(
                pd.DataFrame(layers), "Mean ΔH in nats over the n questions held out, by which layers were chosen."
            ),
        },
        pictures={
            "accuracy": Picture(
                lambda theme: draw(measured, accuracy, theme),
                "Accuracy by how many layers are skipped, with 95 % intervals over questions; the upper dashed line is "
                "the whole model, the dotted one is guessing. Left: any layer may be skipped; right: not the first "
                "and the last.",
            )
        },
        notes=(
            "Every comparison is of the same questions, so their lengths cancel.",
            "Layers are ranked by ΔH; among the most expanding of a shallow model may be some that prune, and the "
            "other way round: the table 'layers' shows their ΔH.",
        ),
    )


def accuracies_of(label: str, measured: Measured, config: InterventionsConfig) -> list[dict[str, object]]:
    """A row for no skipping, and one for each way, count and choice of edges."""
    rows: list[dict[str, object]] = [{"model": label, "kind": "none", "k": 0} | _means([measured.whole], config.seed)]
    for (edges, count, kind), sets in grouped(measured).items():
        row: dict[str, object] = {"model": label, "kind": kind, "k": count, "edges": edges}
        row |= _means([one.answers for one in sets], config.seed)
        if kind == "random":
            row["sets"] = len({one.layers for one in sets})
            row["sd"] = float(np.std([one.answers.correct.mean() for one in sets]))
        else:
            row["layers"] = "+".join(map(str, sets[0].layers))
        rows.append(row)
    return rows


def comparisons_of(label: str, measured: Measured, config: InterventionsConfig) -> list[dict[str, object]]:
    """Every way of choosing layers against skipping none, and against random layers."""
    groups = grouped(measured)
    shares = {key: np.mean([one.answers.correct for one in sets], axis=0) for key, sets in groups.items()}
    rows = []
    for (edges, count, kind), share in shares.items():
        others = {"none": measured.whole.correct, "random": shares[edges, count, "random"]}
        for other in others if kind != "random" else ["none"]:
            found = paired_difference(share, others[other], seed=config.seed)
            row: dict[str, object] = {"model": label, "kind": kind, "against": other, "k": count, "edges": edges}
            row |= found.difference.columns("difference") | found.effect.columns("effect")
            rows.append(row | {"p": found.p, "n": found.n[0]})
    return rows


def grouped(measured: Measured) -> dict[tuple[bool, int, Kind], list[Skipped]]:
    """The sets of layers by edges, count and kind."""
    groups: dict[tuple[bool, int, Kind], list[Skipped]] = {}
    for one in measured.skipped:
        groups.setdefault((one.edges, len(one.layers), one.kind), []).append(one)
    return groups


def _means(answers: list[Answers], seed: int) -> dict[str, object]:
    """Means over questions of answers, each of which is first averaged over sets of layers."""
    row: dict[str, object] = {"n": len(answers[0].correct)}
    for column, name in (("accuracy", "correct"), ("option_entropy", "option_entropy"), ("entropy", "entropy")):
        values = np.mean([getattr(some, name) for some in answers], axis=0)
        row |= bootstrap(np.mean, values, seed=seed).columns(column)
    return row


def _ascending(layers: np.ndarray) -> tuple[int, ...]:
    return tuple(sorted(layers.tolist()))


def draw(measured: Mapping[str, Measured], table: pd.DataFrame, theme: Theme) -> Figure:
    """Two panels for each model."""
    figure = new_figure(theme, 8.4, 3.0 * len(measured))
    grid = figure.subplots(len(measured), 2, squeeze=False, sharey=True)
    colors = {"expansion": theme.first, "pruning": theme.second, "random": theme.faint}
    for (label, some), panels in zip(measured.items(), grid, strict=True):
        for edges, axes in zip((True, False), panels, strict=True):
            axes.axhline(some.whole.correct.mean(), color=theme.ink, linestyle="--", linewidth=0.8)
            axes.axhline(some.chance, color=theme.faint, linestyle=":", linewidth=1)
            for shift, (kind, color) in enumerate(colors.items()):
                rows = table[(table.model == label) & (table.kind == kind) & (table.edges == edges)]
                above, below = rows.accuracy_high - rows.accuracy, rows.accuracy - rows.accuracy_low
                axes.errorbar(
                    rows.k + 0.08 * (shift - 1),
                    rows.accuracy,
                    yerr=np.array([below, above]).clip(0),
                    color=color,
                    label=kind,
                    marker="o",
                    markersize=4,
                    capsize=2,
                )
            title = "any layer" if edges else "not layers 1 and L"
            dress(axes, theme, f"{label}: {title}", "layers skipped", "accuracy")
            axes.xaxis.set_major_locator(whole_numbers())
        legend(panels[0], theme)
    return figure
