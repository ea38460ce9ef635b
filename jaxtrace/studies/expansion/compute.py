"""`study expansion`: which layers widen the prediction and which prune it (Entropy-Lens, arXiv 2502.16570 v3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from scipy.stats import rankdata

from jaxtrace.engine.settings import Settings
from jaxtrace.errors import StudyError
from jaxtrace.figures.theme import Theme, dress, legend, new_figure, whole_numbers
from jaxtrace.model import Model
from jaxtrace.models.on_mesh import on_mesh_of
from jaxtrace.prompts import Prompt
from jaxtrace.settings.probes import Probes
from jaxtrace.statistics.controls import partial_correlation
from jaxtrace.statistics.intervals import Estimate, bootstrap
from jaxtrace.studies._shared.models import loaded
from jaxtrace.studies._shared.progress import SILENT, OnCount, Progress
from jaxtrace.studies._shared.result import Picture, Result, Table
from jaxtrace.studies.expansion.candidates import candidates
from jaxtrace.studies.expansion.settings import ExpansionConfig

QUESTION = "Which layers widen the next-token prediction, which prune it, and does their set of candidates follow?"
Encoded = Sequence[tuple[Prompt, Int[np.ndarray, " P"]]]


@dataclass(frozen=True)
class Expansions:
    """Every layer's prediction at the last position of P prompts; layer 0 is the embedding.

    Attributes:
      tokens: of each prompt.
      vocab: entries of the vocabulary.
      entropy: of each layer's lens, nats.
      size: of each layer's candidate set.
      shared: candidates that the layers 1 to L have in common with the layer before.
    """

    tokens: Int[np.ndarray, " P"]
    vocab: int
    entropy: Float[np.ndarray, "P L1"]
    size: Int[np.ndarray, "P L1"]
    shared: Int[np.ndarray, "P L"]

    @property
    def change(self) -> Float[np.ndarray, "P L"]:
        """ΔH_l = H_l − H_{l−1} of the layers 1 to L, nats; that of layer 1 is over the embedding's own lens."""
        return np.diff(self.entropy, axis=1)

    @property
    def growth(self) -> Int[np.ndarray, "P L"]:
        """By how many tokens each layer's candidate set is larger than that of the layer before."""
        return np.diff(self.size, axis=1)

    @property
    def overlap(self) -> Float[np.ndarray, "P L"]:
        """|A ∩ B| / min(|A|, |B|) of neighbouring layers' sets."""
        return self.shared / np.minimum(self.size[:, 1:], self.size[:, :-1])

    @property
    def jaccard(self) -> Float[np.ndarray, "P L"]:
        """|A ∩ B| / |A ∪ B|."""
        return self.shared / (self.size[:, 1:] + self.size[:, :-1] - self.shared)

    @property
    def chance(self) -> Float[np.ndarray, "P L"]:
        """The overlap that sets of these sizes have if they are drawn independently: max(|A|, |B|) / V."""
        return np.maximum(self.size[:, 1:], self.size[:, :-1]) / self.vocab


def measure_expansions(
    model: Model, encoded: Encoded, mass: float, batch_size: int = 8, on_prompts: OnCount = lambda *_: None
) -> Expansions:
    """Runs prompts up to their last position, and takes each layer's prediction there.

    Args:
      model: with the logit lens or a tuned one.
      encoded: prompts from `model.encode`.
      mass: of the candidate sets.
      batch_size: prompts run at once.
      on_prompts: told how many prompts are done, and how many there are.

    Raises:
      StudyError: there are no prompts, or the logits of one are not finite.
    """
    if not encoded:
        raise StudyError("no prompts to measure layers on; give a task that has some")
    every = tuple(range(model.config.layers + 1))
    settings = Settings(Probes.of(residuals=every), batch_size=batch_size, max_new_tokens=1)
    lens = None if model.lens is None else model.lens.translators
    found = []
    for batch in model.generate_rows(encoded, settings):
        with on_mesh_of(model.params):
            for _, row in batch:
                of_prompt = candidates(model.params, row.metrics["residuals"][0], mass, lens, config=model.config)
                found.append([np.asarray(x) for x in of_prompt])
        on_prompts(len(found), len(encoded))
    entropy, size, shared = (np.stack(arrays) for arrays in zip(*found, strict=True))
    if not np.isfinite(entropy).all():
        bad = encoded[int(np.argmin(np.isfinite(entropy).all(1)))][0]
        raise StudyError(f"prompt {bad.id}: the model's logits are not finite there; leave it out")
    tokens = np.array([len(ids) for _, ids in encoded])
    return Expansions(tokens, model.config.vocab, entropy.astype(float), size, shared)


def run_study(config: ExpansionConfig, out: Path, progress: Progress = SILENT) -> Result:
    """Measure every layer of every model and return the study's result; writes nothing to `out`.

    Raises:
      JaxtraceError: a setting, a prompt, a model or a lens is unusable.
    """
    measured = {}
    for label, model, run in loaded(config, config.lens):
        encoded = model.encode(run.load_prompts(), chat=not run.raw)
        with progress.counter(label, "prompts") as on_prompts:
            measured[label] = measure_expansions(model, encoded, config.mass, run.batch_size, on_prompts)
    return expansion(measured, config)


def expansion(measured: Mapping[str, Expansions], config: ExpansionConfig) -> Result:
    """The study of some models' measurements, by label.

    Raises:
      StudyError: a model has fewer than two layers.
    """
    if shallow := [label for label, some in measured.items() if some.change.shape[1] < 2]:
        raise StudyError(f"{shallow[0]}: has one layer, and nothing changes between layers; take a deeper model")
    lens = "logit lens" if config.lens is None else "tuned lens"
    return Result(
        study="expansion",
        question=QUESTION,
        tables={
            "layers": Table(
                pd.concat([layers_of(label, some, config.seed) for label, some in measured.items()], ignore_index=True),
                f"By layer, means over prompts at their last position, by the {lens}. expansion is ΔH_l = "
                "H_l − H_(l−1) in nats, that of layer 1 over the embedding's own lens, and sd its standard deviation "
                "over prompts; expanding is the share of prompts with ΔH > 0; size counts the fewest tokens that "
                f"reach p = {config.mass:g}; overlap (|A ∩ B| / min) and jaccard (|A ∩ B| / |A ∪ B|) are of the "
                "sets of layers l and l − 1, chance is the overlap of sets of these sizes drawn independently.",
            ),
            "correlations": Table(
                pd.concat(
                    [correlations_of(label, some, config.seed) for label, some in measured.items()], ignore_index=True
                ),
                "Spearman's correlation of ΔH with the change of the candidate set's size, layers 2 to L; intervals "
                "are over prompts, n counts them and points the pairs. 'held fixed': correlation of ranks with a "
                "constant for each layer and ln(prompt tokens) taken out.",
            ),
        },
        pictures={
            "expansion": Picture(
                lambda theme: draw(measured, theme),
                "Left: ΔH by layer, mean and one standard deviation over prompts; above 0 a layer expands, below it "
                "prunes. Middle: size of the candidate set, median and 10th to 90th percentile. Right: overlap of "
                "neighbouring layers' sets, and what chance would give.",
            )
        },
        notes=(
            "A layer's ΔH says how its output reads through a lens, not what the layer is for: the lens of early "
            "layers may read what later layers do not use.",
            "All of it is at one position, so lengths enter only as lengths of prompts; the last line of the "
            "correlations holds them fixed.",
        ),
    )


def layers_of(label: str, some: Expansions, seed: int) -> pd.DataFrame:
    """A row for each layer of one model."""
    rows = []
    for i in range(some.change.shape[1]):
        columns = {
            "expansion": some.change[:, i],
            "expanding": some.change[:, i] > 0,
            "size": some.size[:, i + 1],
            "overlap": some.overlap[:, i],
            "jaccard": some.jaccard[:, i],
        }
        row: dict[str, object] = {"model": label, "layer": i + 1, "entropy": some.entropy[:, i + 1].mean()}
        for name, values in columns.items():
            row |= bootstrap(np.mean, values, seed=seed).columns(name)
        row |= {"sd": some.change[:, i].std(), "chance": some.chance[:, i].mean(), "n": len(some.tokens)}
        rows.append(row)
    return pd.DataFrame(rows)


def correlations_of(label: str, some: Expansions, seed: int) -> pd.DataFrame:
    """The rank correlations of one model."""
    change, growth = some.change[:, 1:], some.growth[:, 1:]
    ratio = np.diff(np.log(some.size), axis=1)[:, 1:]
    prompts, layers = change.shape
    group = np.repeat(np.arange(prompts), layers)
    ln_tokens = np.repeat(np.log(some.tokens), layers)
    fixed = np.column_stack([np.tile(np.eye(layers)[:, 1:], (prompts, 1)), ln_tokens])
    ranks = rankdata(change), rankdata(growth)
    pooled = {"groups": group, "seed": seed}
    over_layers = lambda a, b: spearman(a.mean(0), b.mean(0))  # noqa: E731
    found: dict[str, tuple[Estimate, int]] = {
        "size, every prompt and layer": (bootstrap(spearman, change.ravel(), growth.ravel(), **pooled), change.size),
        "ln size, every prompt and layer": (bootstrap(spearman, change.ravel(), ratio.ravel(), **pooled), change.size),
        "size, means of layers": (bootstrap(over_layers, change, growth, seed=seed), layers),
        "size, layer and length held fixed": (partial_correlation(*ranks, fixed, **pooled), change.size),
    }
    return pd.DataFrame(
        [
            {"model": label, "of": name, **estimate.columns("spearman"), "n": estimate.n, "points": points}
            for name, (estimate, points) in found.items()
        ]
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, ties at their mean rank; NaN where one of them is constant."""
    x, y = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else np.nan


def draw(measured: Mapping[str, Expansions], theme: Theme) -> Figure:
    """A line of three panels for each model."""
    figure = new_figure(theme, 9.6, 2.7 * len(measured))
    grid = figure.subplots(len(measured), 3, squeeze=False)
    for (label, some), (changes, sizes, overlaps) in zip(measured.items(), grid, strict=True):
        layers = np.arange(some.size.shape[1])
        mean, deviation = some.change.mean(0), some.change.std(0)
        changes.axhline(0, color=theme.faint, linewidth=0.8)
        changes.plot(layers[1:], mean, color=theme.first, marker="o", markersize=3)
        changes.fill_between(layers[1:], mean - deviation, mean + deviation, color=theme.first, alpha=0.2, linewidth=0)
        low, middle, high = np.percentile(some.size, [10, 50, 90], axis=0)
        sizes.plot(layers, middle, color=theme.first, marker="o", markersize=3)
        sizes.fill_between(layers, low, high, color=theme.first, alpha=0.2, linewidth=0)
        sizes.set_yscale("log")
        lines = {"|A∩B| / min": some.overlap, "Jaccard": some.jaccard, "chance": some.chance}
        for (name, values), color in zip(lines.items(), (theme.first, theme.second, theme.faint), strict=True):
            overlaps.plot(layers[1:], values.mean(0), color=color, marker="o", markersize=3, label=name)
        dress(changes, theme, label, "layer", "ΔH (nats)")
        dress(sizes, theme, "candidates", "layer", "tokens")
        dress(overlaps, theme, "overlap with the layer before", "layer", "share")
        legend(overlaps, theme)
        for axes in (changes, sizes, overlaps):
            axes.xaxis.set_major_locator(whole_numbers())
    return figure
