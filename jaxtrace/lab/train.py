"""Trains a model of a world, from its text to its card; `python -m jaxtrace.lab.train --out DIR`: the embedded one."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.flax import save

from jaxtrace.checkpoints.weights import export_weights
from jaxtrace.errors import ConfigError
from jaxtrace.files import LOCK, write_atomically
from jaxtrace.lab.card import card_text
from jaxtrace.lab.documents import documents
from jaxtrace.lab.quiz import QuizResult, quiz
from jaxtrace.lab.settings import DEMO_RECIPE, DEMO_WORLD, DecoderRecipe, WorldSettings
from jaxtrace.lab.shapes import DEMO, Shape
from jaxtrace.lab.tasks import SETTINGS
from jaxtrace.lab.tokenizer import BOS_ID, EOS_ID, PAD_ID, save_tokenizer, train_tokenizer
from jaxtrace.lab.training import SAVE_EVERY, encode_documents, held_out_loss, pack, train
from jaxtrace.lab.world import World
from jaxtrace.lock import WriteLock
from jaxtrace.model import load
from jaxtrace.models.decoder import Params
from jaxtrace.training.loop import STATE, OnStep

TRAIN_TEXT, HELD_OUT_TEXT = 1, 2  # seeds of `documents`
HELD_OUT_DOCUMENTS = 1000
WEIGHTS = "model.safetensors"


def run(
    out: Path, shape: Shape, settings: WorldSettings, recipe: DecoderRecipe, command: str, console: Console
) -> QuizResult:
    """Train a model of a world, write its checkpoint directory, and question the written model.

    Args:
      out: directory to write; an interrupted training in it is resumed.
      command: command that trains the model again, for the card.

    Raises:
      ConfigError: the directory holds a finished model, other files, a damaged state or that of another training.
      StoreError: another program is writing the directory.
    """
    with WriteLock(out):
        return _run(out, shape, settings, recipe, command, console)


def _run(
    out: Path, shape: Shape, settings: WorldSettings, recipe: DecoderRecipe, command: str, console: Console
) -> QuizResult:
    # A kill before the first save ends leaves the lock and a part of that save.
    names = {path.name for path in out.iterdir()} - {LOCK, f".{STATE}.tmp"}
    if names and STATE not in names:
        content = "a model already" if (out / WEIGHTS).exists() else "other files"
        raise ConfigError(f"{out}: holds {content}; give another --out")
    world, config = World(settings), shape.decoder
    texts = list(documents(world, TRAIN_TEXT))
    tokenizer = train_tokenizer(texts, shape.vocab)
    rows = pack(encode_documents(tokenizer, texts), recipe.length)
    held_out = islice(documents(world, HELD_OUT_TEXT), HELD_OUT_DOCUMENTS)
    held_out_rows = pack(encode_documents(tokenizer, held_out), recipe.length)

    with _training_progress(recipe, console) as on_step:
        params = train(config, recipe, rows, out / STATE, on_step)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params)
    loss = held_out_loss(config, params, held_out_rows)
    save_checkpoint(out, shape, params)
    save_tokenizer(tokenizer, out, config.context)
    write_atomically(out / SETTINGS, settings.model_dump_json(indent=2) + "\n")

    result = quiz(load(str(out)), world)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    facts = {"name": out.name, "command": command, "parameters": parameters, "loss": loss}
    card = card_text(shape, recipe, result, rows=len(rows), **facts)
    write_atomically(out / "README.md", card)
    (out / STATE).unlink()
    console.print(card, markup=False, highlight=False, soft_wrap=True)
    return result


def save_checkpoint(directory: Path, shape: Shape, params: Params) -> None:
    """Write config.json, generation_config.json and model.safetensors, with the family's weight names.

    Args:
      params: parameters of the model, layers as a list; stored as bfloat16.
    """
    tensors = {name: jnp.asarray(x, jnp.bfloat16) for name, x in export_weights(shape.decoder, params).items()}
    write_atomically(directory / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    generation = {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID}
    for name, content in (("config.json", shape.config), ("generation_config.json", generation)):
        write_atomically(directory / name, json.dumps(content, indent=2) + "\n")


@contextmanager
def _training_progress(recipe: DecoderRecipe, console: Console) -> Iterator[OnStep]:
    """Yield a callback that moves a progress bar and prints the recent loss and speed at every save."""
    columns = (MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    losses, started = [], time.monotonic()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=recipe.steps)

        def on_step(step: int, loss: float) -> None:
            losses.append(loss)
            progress.update(bar, completed=step, description=f"loss {loss:.3f}")
            if step % SAVE_EVERY == 0 or step == recipe.steps:
                rate = len(losses) * recipe.batch * recipe.length / (time.monotonic() - started)
                recent = np.mean(losses[-SAVE_EVERY:])
                console.print(f"step {step}: loss {recent:.4f}, {rate:.0f} tokens/s")

        yield on_step


def main(arguments: list[str] | None = None) -> None:
    """Train the embedded model; see `--help`."""
    recipe = DEMO_RECIPE
    parser = argparse.ArgumentParser(prog="python -m jaxtrace.lab.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to write the checkpoint to")
    parser.add_argument("--steps", type=int, default=recipe.steps, help="optimiser steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=recipe.batch, help="rows per step (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=recipe.seed, help="seed of world and weights (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    recipe = recipe.model_copy(update={"steps": options.steps, "batch": options.batch, "seed": options.seed})
    settings = DEMO_WORLD.model_copy(update={"seed": options.seed})
    flags = f"--steps {recipe.steps} --batch {recipe.batch} --seed {recipe.seed}"
    run(options.out, DEMO, settings, recipe, f"python -m jaxtrace.lab.train --out DIR {flags}", Console())


if __name__ == "__main__":
    main()
