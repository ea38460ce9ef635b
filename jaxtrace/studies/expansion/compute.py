"""`study expansion`: which layers widen the prediction and which prune it (Entropy-Lens, arXiv 2502.16570 v3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from jaxtrace.errors import StudyError
from jaxtrace.run import encode_prompts
from jaxtrace.statistics.controls import partial_correlation
from jaxtrace.statistics.intervals import UNBOUNDED, Estimate, bootstrap, estimate_columns
from jaxtrace.studies._shared.expansions import Expansions, measure_expansions
from jaxtrace.studies._shared.progress import Progress
from jaxtrace.studies._shared.result import EXAMPLES, Picture, Result, Table
from jaxtrace.studies._shared.traces import load_models
from jaxtrace.studies.expansion.figures import expansion_figure
from jaxtrace.studies.expansion.settings import ExpansionConfig

QUESTION = "Which layers widen the next-token prediction, which prune it, and does their set of candidates follow?"
LAYERS_TEXT = (
    "Means over prompts at their last position, by layer, through the {lens}. expansion is ΔH_l = H_l − H_(l−1) in "
    "nats (layer 1: over the embedding's lens), and sd its standard deviation over prompts; expanding is the share of "
    "prompts with ΔH > 0; size counts the fewest tokens that reach p = {mass:g}; overlap (|A ∩ B| / min) and jaccard "
    "(|A ∩ B| / |A ∪ B|) compare the sets of layers l and l − 1; chance is the overlap of sets of these sizes drawn "
    "independently."
)
CORRELATIONS_TEXT = (
    "Spearman's correlation of ΔH with the change of the candidate set's size, layers 2 to L. Intervals are over "
    "prompts; n counts prompts, and points counts pairs. 'held fixed': the correlation of ranks after removing a "
    "constant for each layer and ln(prompt tokens)."
)
PROMPTS_TEXT = "Every prompt, by its number from 0, and layer: the quantities of the table layers."
PICTURE_TEXT = (
    "Left: ΔH by layer, mean and one standard deviation over prompts; a layer above 0 expands, one below 0 prunes. "
    "Middle: size of the candidate set, median and 10th to 90th percentile. Right: overlap of neighbouring layers' "
    "sets, and the overlap by chance."
)
NOTES = (
    "A layer's ΔH describes how its output reads through a lens, not what the layer does: the lens of early layers may "
    "read what later layers ignore.",
    "All measurements are at one position, so only the prompts' lengths can matter; the last line of the correlations "
    "holds them fixed.",
)


SHARE, CORRELATION = (0.0, 1.0), (-1.0, 1.0)  # bounds
BOUNDS = {"expanding": SHARE, "overlap": SHARE, "jaccard": SHARE, "size": (1.0, np.inf)}


def run_study(config: ExpansionConfig, out: Path, progress: Progress) -> Result:
    """Measure every layer of every model and return the study's result; writes nothing to `out`."""
    measured = {}
    for label, model, run in load_models(config, config.lens):
        encoded = encode_prompts(run, model)
        with progress.counter(label, "prompts") as on_prompts:
            measured[label] = measure_expansions(model, encoded, config.mass, run.batch_size, on_prompts)
    return expansion(measured, config)


def expansion(measured: Mapping[str, Expansions], config: ExpansionConfig) -> Result:
    """Return the study of models' measurements, by label.

    Raises:
      StudyError: a model has fewer than two layers.
    """
    if shallow := [label for label, expansions in measured.items() if expansions.change.shape[1] < 2]:
        raise StudyError(f"{shallow[0]}: has one layer, and nothing changes between layers; take a deeper model")
    lens = "logit lens" if config.lens is None else "tuned lens"

    def table(rows: Callable[[str, Expansions, int], pd.DataFrame], text: str) -> Table:
        frames = [rows(label, expansions, config.seed) for label, expansions in measured.items()]
        return Table(pd.concat(frames, ignore_index=True), text)

    layers = table(_layer_rows, LAYERS_TEXT.format(lens=lens, mass=config.mass))
    return Result(
        study="expansion",
        question=QUESTION,
        tables={
            "layers": layers,
            "correlations": table(_correlation_rows, CORRELATIONS_TEXT),
            "prompts": dataclasses.replace(table(_prompt_rows, PROMPTS_TEXT), preview=EXAMPLES),
        },
        pictures={"expansion": Picture(partial(expansion_figure, measured), PICTURE_TEXT, layers.few)},
        notes=NOTES,
    )


def _prompt_rows(label: str, expansions: Expansions, _: int) -> pd.DataFrame:
    """Return one row per prompt and layer."""
    prompts, layers = expansions.change.shape
    names = {"prompt": np.repeat(np.arange(prompts), layers), "layer": np.tile(np.arange(1, layers + 1), prompts)}
    columns = {
        "entropy": expansions.entropy[:, 1:],
        "expansion": expansions.change,
        "size": expansions.size[:, 1:],
        "overlap": expansions.overlap,
        "jaccard": expansions.jaccard,
    }
    return pd.DataFrame({"model": label, **names, **{name: values.ravel() for name, values in columns.items()}})


def _layer_rows(label: str, expansions: Expansions, seed: int) -> pd.DataFrame:
    """Return one row per layer of a model."""
    rows = []
    for i in range(expansions.change.shape[1]):
        columns = {
            "expansion": expansions.change[:, i],
            "expanding": expansions.change[:, i] > 0,
            "size": expansions.size[:, i + 1],
            "overlap": expansions.overlap[:, i],
            "jaccard": expansions.jaccard[:, i],
        }
        row: dict[str, object] = {"model": label, "layer": i + 1, "entropy": expansions.entropy[:, i + 1].mean()}
        row |= estimate_columns(
            {
                name: bootstrap(np.mean, values, seed=seed, bounds=BOUNDS.get(name, UNBOUNDED))
                for name, values in columns.items()
            }
        )
        row |= {"sd": expansions.change[:, i].std(), "chance": expansions.chance[:, i].mean()}
        rows.append(row | {"n": len(expansions.tokens)})
    return pd.DataFrame(rows)


def _correlation_rows(label: str, expansions: Expansions, seed: int) -> pd.DataFrame:
    """Return the rank correlations of a model."""
    change, growth = expansions.change[:, 1:], expansions.growth[:, 1:]
    ratio = np.diff(np.log(expansions.size), axis=1)[:, 1:]
    prompts, layers = change.shape
    ln_tokens = np.repeat(np.log(expansions.tokens), layers)
    fixed = np.column_stack([np.tile(np.eye(layers)[:, 1:], (prompts, 1)), ln_tokens])
    ranks = rankdata(change), rankdata(growth)
    by_prompt = {"groups": np.repeat(np.arange(prompts), layers), "seed": seed}

    every, ln_every = (
        bootstrap(spearman, change.ravel(), x.ravel(), bounds=CORRELATION, **by_prompt) for x in (growth, ratio)
    )
    of_means = bootstrap(lambda a, b: spearman(a.mean(0), b.mean(0)), change, growth, bounds=CORRELATION, seed=seed)
    estimates: dict[str, tuple[Estimate, int]] = {
        "size, every prompt and layer": (every, change.size),
        "ln size, every prompt and layer": (ln_every, change.size),
        "size, means of layers": (of_means, layers),
        "size, layer and length held fixed": (partial_correlation(*ranks, fixed, **by_prompt), change.size),
    }
    return pd.DataFrame(
        [
            {"model": label, "of": name, **estimate.columns("spearman"), "n": estimate.n, "points": points}
            for name, (estimate, points) in estimates.items()
        ]
    )


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation, ties at their mean rank; NaN if one side is constant."""
    x, y = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else np.nan
