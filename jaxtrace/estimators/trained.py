"""Estimators that learn from labels: linear probes of residuals, and the Lookback Lens, both of held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxtrace.errors import ConfigError, LackingError
from jaxtrace.estimators.equivalence import AnyComparison
from jaxtrace.estimators.evaluation import held_out_splits
from jaxtrace.estimators.registry import estimator
from jaxtrace.estimators.residuals import Position, residual_features
from jaxtrace.estimators.samples import semantic_entropy
from jaxtrace.estimators.scores import Scores, checked_labels, drawn
from jaxtrace.traces.layers import present_layers
from jaxtrace.traces.requirements import prompt_numbers
from jaxtrace.traces.row import Row
from jaxtrace.traces.trace import Trace

PENALTY = 0.1  # on the squared weights of standardised features; the loss is a mean over rows


@estimator(
    formula="P(wrong) by logistic regression on the residual of a layer, of prompts that it was not fitted to",
    source="Azaria and Mitchell 2023, SAPLMA (arXiv 2304.13734); linear",
    metrics=("residuals",),
    passes="fit",
)
def correctness_probe(
    trace: Trace,
    *,
    labels: Float[np.ndarray, " rows"],
    layer: int | None = None,
    position: Position = "last",
    seed: int = 0,
) -> Scores:
    """Return the probability that each answer is wrong, by a linear probe of the residual stream.

    Args:
      labels: 1 for a right answer, 0 for a wrong one, NaN for an unknown one, which has no score.
      layer: layer of the residuals; None for the last recorded one.
      position: "last" for the step that draws the last token, "mean" for the mean over the answer's steps.
      seed: seed of the folds.

    Raises:
      LackingError: the layer was not recorded, or a class has answers to fewer than two prompts.
    """
    features = residual_features("correctness_probe", trace, layer, position)
    wrong = 1 - checked_labels(labels, len(trace.rows), "correctness_probe")
    return Scores(held_out("correctness_probe", features, wrong, prompt_numbers(trace), seed))


@estimator(
    formula="P(semantic entropy above its median) by logistic regression on the residual, of prompts that it was not "
    "fitted to",
    source="Kossen et al. 2024 (arXiv 2406.15927)",
    metrics=("residuals", "logprob"),
    passes="samples",
)
def semantic_entropy_probe(
    trace: Trace,
    *,
    equivalence: AnyComparison = "match",
    layer: int | None = None,
    position: Position = "last",
    seed: int = 0,
) -> Scores:
    """Return the probability that the semantic entropy of each answer's prompt is high, from one answer's residual.

    Args:
      equivalence: see `semantic_entropy`.
      layer, position, seed: see `correctness_probe`.
    """
    features = residual_features("semantic_entropy_probe", trace, layer, position)
    entropy = semantic_entropy(trace, equivalence=equivalence).answers
    of_prompts = entropy[np.unique(prompt_numbers(trace), return_index=True)[1]]
    high = np.where(np.isfinite(entropy), entropy > np.nanmedian(of_prompts), np.nan)
    return Scores(held_out("semantic_entropy_probe", features, high, prompt_numbers(trace), seed))


@estimator(
    formula="P(wrong) by logistic regression on the lookback ratios A / (A + G) of all heads, mean over the answer; A "
    "and G the mean weights on visible prompt and generated keys",
    source="Chuang et al. 2024 (arXiv 2407.07071)",
    metrics=("attention_prompt_mass",),
    passes="fit",
)
def lookback_lens(
    trace: Trace, *, labels: Float[np.ndarray, " rows"], span: int | None = None, seed: int = 0
) -> Scores:
    """Return the probability that each answer is wrong, by how much each head looks back at the prompt.

    Args:
      labels: see `correctness_probe`.
      span: number of tokens of a window, 8 in the source; each window has its answer's label, and an answer the mean of
        its windows. None for one window, the whole answer.
      seed: seed of the folds.

    Raises:
      LackingError: no layer has attention, or a class has answers to fewer than two prompts.
    """
    wrong = 1 - checked_labels(labels, len(trace.rows), "lookback_lens")
    if span is not None and span < 1:
        raise ConfigError(f"lookback_lens: span is {span}; give a number of tokens from 1, or None")
    numbers, windows, owners = prompt_numbers(trace), [], []
    for i, row in enumerate(trace.rows):
        if len(row.drawn_steps):
            ratios = lookback_ratios(row, trace.info.get("windows"), trace.traced_layers)
            cuts = range(span, len(ratios), span) if span is not None else ()
            windows += [part.mean(0) for part in np.split(ratios, cuts)]
            owners += [i] * (len(cuts) + 1)
    owner, features = np.array(owners), np.array(windows)
    if not features.size:
        raise LackingError("lookback_lens: needs layers with attention, and the model has none")
    scores = held_out("lookback_lens", features, wrong[owner], numbers[owner], seed)
    counts = np.bincount(owner, minlength=len(numbers))
    sums = np.bincount(owner, scores, minlength=len(numbers))
    return Scores(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))


def lookback_ratios(
    row: Row, windows: Sequence[int | dict[str, int] | None] | None, layers: Sequence[int]
) -> Float[np.ndarray, "drawn heads"]:
    """Return A / (A + G) of each drawn token and each head of the layers that have attention, side by side.

    A is the mean weight on the visible prompt keys, G on the visible generated ones. The ratio is 1 without generated
    keys, and 0 where no prompt key is visible.

    Args:
      windows: keys that each layer of the model sees, as in `info.windows`; None for all.
      layers: recorded layers, from 1.
    """
    mass, present = drawn(row, "attention_prompt_mass"), present_layers(row, "attention_prompt_mass")
    length = len(row.prompt_tokens)
    query = length - 1 + row.drawn_steps - row.prompt_steps
    ratios = []
    for index in np.flatnonzero(present):
        first = first_visible(query, None if windows is None else windows[layers[int(index)] - 1])
        prompt_keys, generated = np.maximum(length - first, 0), query + 1 - np.maximum(length, first)
        on_prompt = mass[:, index] / np.maximum(prompt_keys, 1)[:, None]
        on_generated = (1 - mass[:, index]) / np.maximum(generated, 1)[:, None]
        both = on_prompt + on_generated
        ratio = on_prompt / np.where(both > 0, both, 1.0)
        ratios.append(np.where((generated > 0)[:, None], ratio, 1.0))
    return np.concatenate(ratios, axis=1) if ratios else np.empty((len(query), 0))


def first_visible(query: Int[np.ndarray, " drawn"], window: int | dict[str, int] | None) -> Int[np.ndarray, " drawn"]:
    """Return the first position that a query at each position sees."""
    if window is None:
        return np.zeros_like(query)
    if isinstance(window, dict):
        return query // window["chunk"] * window["chunk"]
    return np.maximum(query - window + 1, 0)


def held_out(
    name: str,
    features: Float[np.ndarray, "rows D"],
    positive: Float[np.ndarray, " rows"],
    groups: Int[np.ndarray, " rows"],
    seed: int,
) -> Float[np.ndarray, " rows"]:
    """Return the probability of the positive class by logistic regression on standardised features of other groups.

    Args:
      name: name of the estimator, for messages.
      features: [rows, D]; a row with NaN has no score.
      positive: 1, 0, or NaN for a row that has no score.

    Raises:
      LackingError: a class has rows of fewer than two groups.
    """
    scores = np.full(len(positive), np.nan)
    rows = np.flatnonzero(np.isfinite(positive) & np.isfinite(features).all(1))
    classes: Bool[np.ndarray, " rows"] = positive[rows] == 1
    splits = held_out_splits(classes, groups[rows], seed=seed)
    if splits is None:
        raise LackingError(f"{name}: needs answers of both classes to two prompts or more each; give more labels")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (PENALTY * len(rows)), max_iter=1000))
    both = cross_val_predict(model, features[rows], classes, cv=splits, method="predict_proba")
    scores[rows] = np.asarray(both)[:, 1]
    return scores
