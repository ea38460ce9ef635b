"""Logistic regression and a small network, trained on all rows at once, and cross-validated by groups of rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from flax import nnx
from sklearn.model_selection import StratifiedGroupKFold

from jaxtrace.errors import StudyError
from jaxtrace.studies.confidence.model import Classifier, Fitted, standardised

STEPS = 400
RATE = {0: 0.1, 1: 0.02}  # learning rate of Adam at its start, by whether there is a hidden layer


def cross_validated(
    frame: pd.DataFrame,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    hidden: int = 0,
    penalty: float = 0.01,
    free: Sequence[str] = (),
    folds: int = 5,
    seed: int = 0,
) -> tuple[np.ndarray, Fitted]:
    """Trains a classifier on the training part of every fold, and one on all rows: one compiled program.

    Rows of a group (a prompt) are all in the same fold. Means and standard deviations of the features are those of
    the training part. Minimised is the mean cross-entropy + penalty / 2 · Σ (weights, neither biases nor those of free
    features)², by Adam with a cosine schedule.

    Args:
      frame: features [rows, features]; NaN is the mean of its column.
      labels: [rows] of 0 and 1.
      groups: [rows].
      hidden: units of the hidden layer; 0 for logistic regression.
      penalty: on the weights of standardised features.
      free: features whose own weights have none: however large it is, the classifier can say what they say.
      folds: number of parts.
      seed: of the folds and of the first weights.

    Returns:
      Of each row the probability of a 1 by the classifier that has not seen its group, float64 [rows]; and the
      classifier of all rows.

    Raises:
      StudyError: only one class, or fewer groups of a class than folds.
    """
    check_folds(labels, groups, folds)
    splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(frame, labels, groups)
    weights, fold_of = np.ones((folds + 1, len(labels)), np.float32), np.empty(len(labels), int)
    for fold, (_, held_out) in enumerate(splits):
        weights[fold, held_out], fold_of[held_out] = 0, fold
    x = frame.to_numpy(np.float32)
    penalties = np.where(frame.columns.isin(list(free)), 0.0, penalty).astype(np.float32)
    key = jax.random.key(seed)
    arrays, probabilities = _fit(x, labels.astype(np.float32), weights, key, penalties, penalty, hidden=hidden)
    out_of_fold = np.asarray(probabilities, float)[fold_of, np.arange(len(labels))]
    whole = {name: np.asarray(values[-1]) for name, values in arrays.items()}
    return out_of_fold, Fitted(tuple(frame.columns), hidden, whole)


def check_folds(labels: np.ndarray, groups: np.ndarray, folds: int) -> None:
    """Raises StudyError unless each class is in as many groups as there are folds."""
    for value, word in ((1, "right"), (0, "wrong")):
        count = len(np.unique(groups[labels == value]))
        if count < max(folds, 2):
            what = f"{count} prompts, or groups of them, have an answer that is {word}"
            raise StudyError(f"{what}, and there are {folds} folds; give more of them, or fewer --folds")


@partial(jax.jit, static_argnames="hidden")
def _fit(
    x: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    key: jax.Array,
    penalties: jax.Array,
    penalty: float,
    *,
    hidden: int,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Trains a classifier for each line of weights [fits, rows] of the rows.

    Args:
      penalties: [features] on the squared weights that read each feature.
      penalty: on those of the layer after it.

    Returns:
      Arrays of `Fitted`, with a leading axis, and probabilities [fits, rows].
    """
    graph, start = nnx.split(Classifier(x.shape[1], hidden, nnx.Rngs(key)))
    optimiser = optax.adam(optax.cosine_decay_schedule(RATE[bool(hidden)], STEPS))

    def fit(weight: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        seen = weight[:, None] * jnp.isfinite(x)
        count = jnp.maximum(seen.sum(0), 1)
        mean = jnp.where(seen > 0, x, 0).sum(0) / count
        sd = jnp.sqrt((seen * jnp.where(seen > 0, x - mean, 0) ** 2).sum(0) / count)
        sd = jnp.where(sd > 1e-6 * jnp.abs(mean) + 1e-12, sd, 1.0)
        z = standardised(x, mean, sd)

        def loss(state: nnx.State) -> jax.Array:
            errors = optax.sigmoid_binary_cross_entropy(nnx.merge(graph, state)(z), labels)
            named = {path: leaf.get_value() for path, leaf in nnx.to_flat_state(state)}
            squares = penalties @ (named["hidden" if hidden else "out", "kernel"] ** 2).sum(1)
            if hidden:
                squares += penalty * (named["out", "kernel"] ** 2).sum()
            return (weight * errors).sum() / weight.sum() + squares / 2

        def step(carry: tuple[Any, optax.OptState], _: None) -> tuple[tuple[Any, optax.OptState], None]:
            state, moments = carry
            update, moments = optimiser.update(jax.grad(loss)(state), moments)
            return (optax.apply_updates(state, update), moments), None

        (state, _), _ = jax.lax.scan(step, (start, optimiser.init(start)), length=STEPS)
        named = {".".join(map(str, path)): value.get_value() for path, value in nnx.to_flat_state(state)}
        return named | {"mean": mean, "sd": sd}, jax.nn.sigmoid(nnx.merge(graph, state)(z))

    return jax.vmap(fit)(weights)
