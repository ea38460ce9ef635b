"""Trains a model of a world, from its text to its card; `python -m jaxtrace.lab.train --out DIR`: the embedded one."""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console

from jaxtrace.errors import ConfigError
from jaxtrace.lab.card import card_text
from jaxtrace.lab.data import encode_documents, pack
from jaxtrace.lab.documents import documents
from jaxtrace.lab.export import WEIGHTS, save_checkpoint
from jaxtrace.lab.quiz import Quiz, quiz
from jaxtrace.lab.settings import DEMO_WORLD, WorldSettings
from jaxtrace.lab.shapes import Shape
from jaxtrace.lab.tasks import SETTINGS
from jaxtrace.lab.tokenizer import save_tokenizer, train_tokenizer
from jaxtrace.lab.training import Recipe, held_out_loss, train
from jaxtrace.lab.world import World
from jaxtrace.model import load

DEMO, DEMO_RECIPE = Shape(family="llama", layers=6, width=128), Recipe(steps=1600, batch=8, length=256)
LAB_RECIPE = Recipe(steps=1000, batch=16, length=128)
TRAIN_TEXT, HELD_OUT_TEXT = 1, 2  # seeds of `documents`
HELD_OUT_DOCUMENTS = 1000
STATE = "state.npz"


def run(out: Path, shape: Shape, settings: WorldSettings, recipe: Recipe, command: str, console: Console) -> Quiz:
    """Makes the text, trains, writes the whole checkpoint folder, and measures what was written.

    Args:
      out: the folder to write; an interrupted run goes on from the `state.npz` in it, removed at the end.
      shape: of the model.
      settings: of the world.
      recipe: how to train it.
      command: what the card says trains it again.
      console: where progress is shown.

    Returns:
      What the written model answers.

    Raises:
      ConfigError: the folder holds a finished model, other files, or what another run left.
    """
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()) and not (out / STATE).exists():
        held = "a model already" if (out / WEIGHTS).exists() else "other files"
        raise ConfigError(f"{out}: holds {held}; give another --out")
    world, config = World(settings), shape.decoder
    texts = list(documents(world, TRAIN_TEXT))
    tokenizer = train_tokenizer(texts, shape.vocab)
    rows = pack(encode_documents(tokenizer, texts), recipe.length)
    held_out = islice(documents(world, HELD_OUT_TEXT), HELD_OUT_DOCUMENTS)
    held_rows = pack(encode_documents(tokenizer, held_out), recipe.length)

    params = train(config, recipe, rows, out / STATE, console)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params)
    loss = held_out_loss(config, params, held_rows)
    save_checkpoint(out, shape, params)
    save_tokenizer(tokenizer, out, config.context)
    (out / SETTINGS).write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")

    found = quiz(load(str(out)), world)
    card = card_text(
        found,
        name=out.name,
        family=shape.family,
        layers=shape.layers,
        width=shape.width,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        command=command,
        steps=recipe.steps,
        batch=recipe.batch,
        length=recipe.length,
        tokens=recipe.steps * recipe.batch * recipe.length / 1e6,
        epochs=recipe.steps * recipe.batch / len(rows),
        loss=loss,
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    (out / STATE).unlink(missing_ok=True)
    console.print(card, markup=False, highlight=False, soft_wrap=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    """The command line of the embedded model: see `--help`."""
    recipe = DEMO_RECIPE
    parser = argparse.ArgumentParser(prog="python -m jaxtrace.lab.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write the checkpoint to")
    parser.add_argument("--steps", type=int, default=recipe.steps, help="optimiser steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=recipe.batch, help="rows of a step (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=recipe.seed, help="of world and weights (default: %(default)s)")
    given = parser.parse_args(arguments)
    recipe = replace(recipe, steps=given.steps, batch=given.batch, seed=given.seed)
    settings = DEMO_WORLD.model_copy(update={"seed": given.seed})
    flags = f"--steps {recipe.steps} --batch {recipe.batch} --seed {recipe.seed}"
    run(given.out, DEMO, settings, recipe, f"python -m jaxtrace.lab.train --out DIR {flags}", Console())


if __name__ == "__main__":
    main()
