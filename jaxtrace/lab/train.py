"""Trains the embedded model: `python -m jaxtrace.lab.train --out DIR`."""

import argparse
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
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
from jaxtrace.lab.card import card_text
from jaxtrace.lab.data import batch_at, encode_documents, pack
from jaxtrace.lab.embedded import SEED
from jaxtrace.lab.export import save_checkpoint
from jaxtrace.lab.quiz import quiz
from jaxtrace.lab.tokenizer import PAD_ID, VOCAB_SIZE, save_tokenizer, train_tokenizer
from jaxtrace.lab.world import World, documents
from jaxtrace.models.config import DecoderConfig
from jaxtrace.models.decoder import Params, init_params
from jaxtrace.models.forward import forward_logits

DEMO = DecoderConfig(
    family="llama",
    vocab=VOCAB_SIZE,
    embed=128,
    layers=6,
    heads=8,
    kv_heads=4,
    head_dim=16,
    feed_forward=384,
    context=256,
    tied=True,
)
TRAIN_TEXT, HELD_OUT_TEXT = 1, 2  # seeds of `documents`
HELD_OUT_DOCUMENTS = 1000
SAVE_EVERY = 100


@dataclass(frozen=True)
class Recipe:
    """What decides the trained weights besides the model's shape.

    Attributes:
      steps: optimiser steps.
      batch: rows per step.
      length: tokens per row.
      learning_rate: the peak, reached after `warmup` steps and decayed by a cosine to a twentieth.
      warmup: steps of linear warm-up.
      weight_decay: of AdamW.
      seed: of the world, the text, the initial weights and the order of the rows.
    """

    steps: int = 1600
    batch: int = 8
    length: int = 256
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.1
    seed: int = SEED


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
      ConfigError: `state_file` is of another recipe.
    """
    params = init_params(config, jax.random.key(recipe.seed))
    first, (params, moments) = _load_state(state_file, recipe, (params, _optimizer(recipe).init(params)))
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
                _save_state(state_file, recipe, step + 1, (params, moments))
                rate = len(losses) * recipe.batch * recipe.length / (time.monotonic() - started)
                recent = np.mean(losses[-SAVE_EVERY:])
                console.print(f"step {step + 1}: loss {recent:.4f}, {rate:.0f} tokens/s")
    return params


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


def held_out_loss(config: DecoderConfig, params: Params, rows: Int[np.ndarray, "n T"], batch: int = 8) -> float:
    """Mean next-token cross-entropy in nats over `rows`, every token weighing the same."""
    evaluate = jax.jit(loss_fn, static_argnums=0)
    parts = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    weights = [(part[:, 1:] != PAD_ID).sum() for part in parts]
    return float(np.average([float(evaluate(config, params, part)) for part in parts], weights=weights))


def _save_state(path: Path, recipe: Recipe, step: int, state) -> None:
    leaves: dict[str, Any] = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    unfinished = path.with_suffix(".partial.npz")
    np.savez(unfinished, recipe=repr(recipe), step=step, **leaves)
    unfinished.replace(path)


def _load_state(path: Path, recipe: Recipe, fresh):
    if not path.exists():
        return 0, fresh
    with np.load(path) as saved:
        if str(saved["recipe"]) != repr(recipe):
            raise ConfigError(f"{path}: left by a run with other options; remove it or give another --out")
        leaves, structure = jax.tree.flatten(fresh)
        restored = [jnp.asarray(saved[str(i)]) for i in range(len(leaves))]
        return int(saved["step"]), jax.tree.unflatten(structure, restored)


def run(out: Path, config: DecoderConfig, recipe: Recipe, console: Console) -> None:
    """Makes the text, trains, measures the rounded weights and writes the whole checkpoint folder.

    Args:
      out: the folder to write; an interrupted run goes on from the `state.npz` in it, removed at the end.
      config: the model's shape.
      recipe: how to train it.
      console: where progress is shown.
    """
    out.mkdir(parents=True, exist_ok=True)
    world = World(recipe.seed)
    texts = list(documents(world, TRAIN_TEXT))
    tokenizer = train_tokenizer(texts, config.vocab)
    rows = pack(encode_documents(tokenizer, texts), recipe.length)
    held_out = islice(documents(world, HELD_OUT_TEXT), HELD_OUT_DOCUMENTS)
    held_rows = pack(encode_documents(tokenizer, held_out), recipe.length)

    params = train(config, recipe, rows, out / "state.npz", console)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params)
    loss = held_out_loss(config, params, held_rows)
    results = quiz(world, tokenizer, jax.jit(lambda tokens: forward_logits(config, params, tokens)))

    save_checkpoint(out, config, params)
    save_tokenizer(tokenizer, out, config.context)
    card = card_text(
        results,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        flags=f"--steps {recipe.steps} --batch {recipe.batch} --seed {recipe.seed}",
        steps=recipe.steps,
        batch=recipe.batch,
        length=recipe.length,
        tokens=recipe.steps * recipe.batch * recipe.length / 1e6,
        epochs=recipe.steps * recipe.batch / len(rows),
        loss=loss,
        perplexity=math.exp(loss),
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    (out / "state.npz").unlink(missing_ok=True)
    console.print(card, markup=False, highlight=False, soft_wrap=True)


def main(arguments: list[str] | None = None) -> None:
    """The command line: see `--help`."""
    recipe = Recipe()
    parser = argparse.ArgumentParser(prog="python -m jaxtrace.lab.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the checkpoint to")
    parser.add_argument("--steps", type=int, default=recipe.steps, help="optimiser steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=recipe.batch, help="rows of a step (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=recipe.seed, help="of world and weights (default: %(default)s)")
    given = parser.parse_args(arguments)
    recipe = replace(recipe, steps=given.steps, batch=given.batch, seed=given.seed)
    run(given.out, DEMO, recipe, Console())


if __name__ == "__main__":
    main()
