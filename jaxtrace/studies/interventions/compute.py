"""`study interventions`: what a model loses without the layers that widen or prune its prediction most."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxtrace.errors import StudyError
from jaxtrace.files import atomic_file
from jaxtrace.grading.choices import ChoiceAnswers, ChoiceQuestion, answer_questions, choice_questions
from jaxtrace.model import Model
from jaxtrace.models.interventions import Interventions
from jaxtrace.run import load_prompts
from jaxtrace.settings.prompt import PromptSettings
from jaxtrace.statistics.differences import paired_difference
from jaxtrace.statistics.intervals import bootstrap
from jaxtrace.studies._shared.adjustment import adjusted_table
from jaxtrace.studies._shared.expansions import measure_expansions
from jaxtrace.studies._shared.progress import OnCount, Progress
from jaxtrace.studies._shared.result import EXAMPLES, Picture, Result, Table
from jaxtrace.studies._shared.traces import load_models
from jaxtrace.studies.interventions.figures import accuracy_figure
from jaxtrace.studies.interventions.settings import InterventionsConfig

QUESTION = "Does a model lose more without its expanding or pruning layers than without random layers?"
ACCURACY_TEXT = (
    "Accuracy over n questions with k layers skipped, by how they were chosen; edges says whether layers 1 and L "
    "could be. option_entropy (nats) is the entropy over the options alone, entropy that of the next token. Random "
    "sets are averaged question by question: sets counts the different ones, sd is the standard deviation of their "
    "accuracies."
)
COMPARISONS_TEXT = (
    "Differences in accuracy on the same n questions: over skipping nothing, and over the mean of the random sets of "
    "the same size. effect is the standardised mean difference, p comes from a sign-change test. Intervals are over "
    "questions, with the random sets fixed."
)
QUESTIONS_TEXT = "Every asked question, averaged over the sets of layers of a line; correct is 1 for a right answer."
MEASURED = ("correct", "option_entropy", "entropy")
PICTURE_TEXT = (
    "Accuracy by number of skipped layers, with 95 % intervals over questions; the dashed line is the whole model, the "
    "dotted one is guessing. Left: any layer may be skipped; right: not the first and the last."
)
NOTES = (
    "Every comparison uses the same questions, so their lengths cancel.",
    "Layers are ranked by ΔH. In a shallow model the most expanding layers may include some that prune, and vice "
    "versa: the table 'layers' shows their ΔH.",
)
SelectionKind = Literal["none", "expansion", "pruning", "random"]


@dataclass(frozen=True)
class Ablation:
    """A set of ablated layers, and the model's answers without them.

    Attributes:
      kind: way the layers were chosen.
      edges: True if the first and the last layer could be chosen.
      layers: numbers of the ablated layers, from 1.
    """

    kind: SelectionKind
    edges: bool
    layers: tuple[int, ...]
    answers: ChoiceAnswers


@dataclass(frozen=True)
class ModelAblations:
    """Measurements of one model.

    Attributes:
      expansion: mean ΔH of the layers 1 to L over the held-out questions, nats.
      held_out: number of held-out questions, which chose the layers.
      chance: accuracy of guessing.
      questions: names of the other questions, which were asked.
    """

    expansion: Float[np.ndarray, " L"]
    held_out: int
    chance: float
    whole: ChoiceAnswers
    ablations: tuple[Ablation, ...]
    questions: tuple[str, ...]


def run_study(config: InterventionsConfig, out: Path, progress: Progress) -> Result:
    """Ask every model without each set of layers, cache the answers in `out`/answers, and return the study's result."""
    measured = {}
    for label, model, run in load_models(config, config.lens):
        questions = choice_questions(model, load_prompts(run), config.options, PromptSettings(bos=run.bos))
        with progress.counter(label, "answers") as on_answers:
            folder = out / "answers" / Path(label).name
            measured[label] = measure_interventions(model, questions, config, on_answers, folder)
    return interventions(measured, config)


def measure_interventions(
    model: Model,
    questions: Sequence[ChoiceQuestion],
    config: InterventionsConfig,
    on_answers: OnCount = lambda *_: None,
    folder: Path | None = None,
) -> ModelAblations:
    """Choose layers by ΔH on some questions, and ask the other questions without them.

    Args:
      on_answers: callback with the numbers of answers given and in all: first for the questions that choose the layers,
        then for the others and every set of layers.
      folder: directory of the answer cache, from which an interrupted study resumes; None for no cache.

    Raises:
      StudyError: there are too few questions to hold some out, or too few layers for a count.
    """
    held_out = round(config.held_out * len(questions))
    if not 0 < held_out < len(questions):
        raise StudyError(f"{len(questions)} questions of which {held_out} are held out; give more, or another held_out")
    if max(config.counts) > model.config.num_layers or min(config.counts) < 1:
        raise StudyError(f"counts {list(config.counts)}: give numbers of layers from 1 to {model.config.num_layers}")
    order = np.random.default_rng(config.seed).permutation(len(questions))
    choosing, asked = ([questions[i] for i in part] for part in np.split(order, [held_out]))
    pairs = [(question.prompt, question.tokens) for question in choosing]
    change = measure_expansions(model, pairs, config.mass, config.batch_size, on_answers).change.mean(0)
    chosen = list(chosen_sets(change, config))
    key = "" if folder is None else _cache_key(model, asked)
    answers: dict[tuple[int, ...], ChoiceAnswers] = {}
    distinct = {(), *(layers for *_, layers in chosen)}
    earlier = 0

    def counted(done: int, of_set: int) -> None:
        on_answers(earlier + done, of_set * len(distinct))

    for number, layers in enumerate(sorted(distinct)):
        earlier = number * len(asked)
        masks = Interventions.of(model.config, layers)
        ask = functools.partial(answer_questions, model, asked, masks, config.batch_size, counted)
        answers[layers] = ask() if folder is None else _cached_answers(folder, key, layers, ask)
        counted(len(asked), len(asked))
    chance = float(np.mean([1 / len(question.options) for question in asked]))
    ablations = tuple(Ablation(kind, edges, layers, answers[layers]) for kind, edges, layers in chosen)
    names = tuple(question.prompt.id for question in asked)
    return ModelAblations(change, held_out, chance, answers[()], ablations, names)


def _cache_key(model: Model, questions: Sequence[ChoiceQuestion]) -> str:
    """Return the hash of a model and its questions."""
    asked = [(question.tokens.tolist(), question.options, question.answer) for question in questions]
    return hashlib.sha256(json.dumps([model.fingerprint(), asked]).encode()).hexdigest()


def _cached_answers(folder: Path, key: str, layers: Sequence[int], ask: Callable[[], ChoiceAnswers]) -> ChoiceAnswers:
    """Return the answers without some layers from their file; `ask` gives them if it is missing or has another key."""
    file = folder / f"without-{'-'.join(map(str, layers)) or 'none'}.npz"
    if file.exists():
        with np.load(file) as stored:
            if str(stored["of"]) == key:
                return ChoiceAnswers(**{field.name: stored[field.name] for field in dataclasses.fields(ChoiceAnswers)})
    answers = ask()
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as stream:
        np.savez(stream, of=key, **dataclasses.asdict(answers))
    return answers


def chosen_sets(
    change: Float[np.ndarray, " L"], config: InterventionsConfig
) -> Iterator[tuple[SelectionKind, bool, tuple[int, ...]]]:
    """Yield (kind, edges allowed, layers ascending) of every set of layers to ablate.

    Counts that exceed the layers between the edges are skipped there.

    Args:
      change: mean ΔH of the layers 1 to L.
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


def interventions(measured: Mapping[str, ModelAblations], config: InterventionsConfig) -> Result:
    """Return the study of models' measurements, by label."""
    comparisons = [row for label, model in measured.items() for row in _comparison_rows(label, model, config)]
    accuracy = pd.DataFrame([row for label, model in measured.items() for row in _accuracy_rows(label, model, config)])
    layers = [
        {"model": label, "layer": i, "expansion": value, "n": model.held_out}
        for label, model in measured.items()
        for i, value in enumerate(model.expansion, 1)
    ]
    by_kind = Table(accuracy, ACCURACY_TEXT)
    questions = [frame for label, model in measured.items() for frame in _question_frames(label, model)]
    chance = {label: model.chance for label, model in measured.items()}
    return Result(
        study="interventions",
        question=QUESTION,
        tables={
            "accuracy": by_kind,
            "comparisons": adjusted_table(pd.DataFrame(comparisons), COMPARISONS_TEXT, "model"),
            "questions": Table(pd.concat(questions, ignore_index=True), QUESTIONS_TEXT, EXAMPLES),
            "layers": Table(
                pd.DataFrame(layers), "Mean ΔH in nats over the n held-out questions, which chose the layers."
            ),
        },
        pictures={"accuracy": Picture(functools.partial(accuracy_figure, accuracy, chance), PICTURE_TEXT, by_kind.few)},
        notes=NOTES,
    )


def _accuracy_rows(label: str, measured: ModelAblations, config: InterventionsConfig) -> Iterator[dict[str, object]]:
    """Yield a row for the whole model, and one for each kind, count and choice of edges."""
    yield {"model": label, "kind": "none", "k": 0} | _means([measured.whole], config.seed)
    for (edges, count, kind), ablations in _grouped(measured).items():
        row: dict[str, object] = {"model": label, "kind": kind, "k": count, "edges": edges}
        row |= _means([ablation.answers for ablation in ablations], config.seed)
        if kind == "random":
            row["sets"] = len({ablation.layers for ablation in ablations})
            row["sd"] = float(np.std([ablation.answers.correct.mean() for ablation in ablations]))
        else:
            row["layers"] = "+".join(map(str, ablations[0].layers))
        yield row


def _comparison_rows(label: str, measured: ModelAblations, config: InterventionsConfig) -> Iterator[dict[str, object]]:
    """Yield every kind of ablation compared with no ablation, and with random layers."""
    shares = {
        key: np.mean([ablation.answers.correct for ablation in ablations], axis=0)
        for key, ablations in _grouped(measured).items()
    }
    for (edges, count, kind), share in shares.items():
        others = {"none": measured.whole.correct, "random": shares[edges, count, "random"]}
        for other in others if kind != "random" else ["none"]:
            gap = paired_difference(share, others[other], seed=config.seed)
            keys = {"model": label, "kind": kind, "against": other, "k": count, "edges": edges}
            yield {**keys, **gap.columns("effect")}


def _question_frames(label: str, measured: ModelAblations) -> Iterator[pd.DataFrame]:
    """Yield the answers to every question, averaged over the sets of layers of a kind, count and choice of edges."""
    groups = {(None, 0, "none"): [measured.whole]}
    groups |= {key: [each.answers for each in ablations] for key, ablations in _grouped(measured).items()}
    for (edges, count, kind), answers in groups.items():
        columns = {name: np.mean([getattr(each, name) for each in answers], axis=0) for name in MEASURED}
        keys = {"model": label, "prompt": measured.questions, "kind": kind, "k": count, "edges": edges}
        yield pd.DataFrame(keys | columns)


def _grouped(measured: ModelAblations) -> dict[tuple[bool, int, SelectionKind], list[Ablation]]:
    """Return the ablations by edges, count and kind."""
    groups: dict[tuple[bool, int, SelectionKind], list[Ablation]] = {}
    for ablation in measured.ablations:
        groups.setdefault((ablation.edges, len(ablation.layers), ablation.kind), []).append(ablation)
    return groups


def _means(answers: Sequence[ChoiceAnswers], seed: int) -> dict[str, object]:
    """Return means over questions, after averaging each question over sets of layers."""
    row: dict[str, object] = {"n": len(answers[0].correct)}
    for column, name in (("accuracy", "correct"), ("option_entropy", "option_entropy"), ("entropy", "entropy")):
        values = np.mean([getattr(of_set, name) for of_set in answers], axis=0)
        bounds = (0.0, 1.0 if name == "correct" else np.inf)
        row |= bootstrap(np.mean, values, seed=seed, bounds=bounds).columns(column)
    return row


def _ascending(layers: np.ndarray) -> tuple[int, ...]:
    return tuple(sorted(layers.tolist()))
