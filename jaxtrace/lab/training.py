"""Training a decoder on packed rows of text: loss, optimiser, and a state to go on from."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxtrace.errors import ConfigError
from jaxtrace.lab.data import batch_at
from jaxtrace.lab.tokenizer import PAD_ID
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, init_params
from jaxtrace.models.forward import forward_logits

SAVE_EVERY = 100


@dataclass(frozen=True)
class Recipe:
    """What decides the trained weights besides the model's shape and the text.

    Attributes:
      steps: optimiser steps.
      batch: rows per step.
      length: tokens per row.
      learning_rate: the peak, reached after `warmup` steps and decayed by a cosine to a twentieth.
      warmup: steps of linear warm-up.
      weight_decay: of AdamW.
      seed: of the initial weights and the order of the rows.
    """

    steps: int
    batch: int
    length: int
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.1
    seed: int = 0


def loss_fn(config: DecoderConfig, params: Params, rows: Int[Array, "B T"]) -> Float[Array, ""]:
    """Mean next-token cross-entropy in nats over the places that are not padding."""
    logits = forward_logits(config, params, rows[:, :-1])
    targets = rows[:, 1:]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return losses.mean(where=targets != PAD_ID)


def train(
    config: DecoderConfig, recipe: Recipe, rows: Int[np.ndarray, "n T"], state_file: Path, console: Console
) -> Params:
    """Trains from random weights, or goes on from `state_file`.

    Args:
      config: the model's shape.
      recipe: how to train it.
      rows: packed training text.
      state_file: an .npz of step, parameters and optimiser state, rewritten every `SAVE_EVERY` steps.
      console: where progress is shown.

    Returns:
      The trained parameters, float32.

    Raises:
      ConfigError: `state_file` is of another shape, recipe or text.
    """
    run = f"{config} {recipe} {hashlib.sha256(rows.tobytes()).hexdigest()}"
    params = init_params(config, jax.random.key(recipe.seed))
    first, (params, moments) = _load_state(state_file, run, (params, _optimizer(recipe).init(params)))
    columns = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    losses, started = [], time.monotonic()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=recipe.steps, completed=first)
        for step in range(first, recipe.steps):
            batch = batch_at(rows, step, recipe.batch, recipe.seed)
            params, moments, loss = _step(config, recipe, params, moments, batch)
            losses.append(float(loss))
            progress.update(bar, advance=1, description=f"loss {losses[-1]:.3f}")
            if (step + 1) % SAVE_EVERY == 0:
                _save_state(state_file, run, step + 1, (params, moments))
                rate = len(losses) * recipe.batch * recipe.length / (time.monotonic() - started)
                recent = np.mean(losses[-SAVE_EVERY:])
                console.print(f"step {step + 1}: loss {recent:.4f}, {rate:.0f} tokens/s")
    return params


def held_out_loss(config: DecoderConfig, params: Params, rows: Int[np.ndarray, "n T"], batch: int = 8) -> float:
    """Mean next-token cross-entropy in nats over `rows`, every token weighing the same."""
    evaluate = jax.jit(loss_fn, static_argnums=0)
    parts = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    weights = [(part[:, 1:] != PAD_ID).sum() for part in parts]
    return float(np.average([float(evaluate(config, params, part)) for part in parts], weights=weights))


def _optimizer(recipe: Recipe) -> optax.GradientTransformation:
    peak, warmup = recipe.learning_rate, min(recipe.warmup, recipe.steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(0.0, peak, warmup, recipe.steps, peak / 20)
    adamw = optax.adamw(schedule, b2=0.98, weight_decay=recipe.weight_decay)
    return optax.chain(optax.clip_by_global_norm(1.0), adamw)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def _step(config: DecoderConfig, recipe: Recipe, params: Params, moments: optax.OptState, batch: Int[Array, "B T"]):
    loss, gradient = jax.value_and_grad(loss_fn, argnums=1)(config, params, batch)
    update, moments = _optimizer(recipe).update(gradient, moments, params)
    return optax.apply_updates(params, update), moments, loss


def _save_state(path: Path, run: str, step: int, state) -> None:
    leaves: dict[str, Any] = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    unfinished = path.with_suffix(".partial.npz")
    np.savez(unfinished, run=run, step=step, **leaves)
    unfinished.replace(path)


def _load_state(path: Path, run: str, fresh):
    if not path.exists():
        return 0, fresh
    with np.load(path) as saved:
        if str(saved["run"]) != run:
            raise ConfigError(f"{path}: left by a run with other options; remove it or give another --out")
        leaves, structure = jax.tree.flatten(fresh)
        restored = [jnp.asarray(saved[str(i)]) for i in range(len(leaves))]
        return int(saved["step"]), jax.tree.unflatten(structure, restored)
