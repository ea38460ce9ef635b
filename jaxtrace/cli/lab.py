"""`jaxtrace lab`: small models of a world whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxtrace.cli.app import Option, console, fail, verb

lab_app = typer.Typer(help="Small models, trained here, of a world whose truth is known.", no_args_is_help=True)


@lab_app.command()
@verb
def train(
    out: Annotated[Path, Option(help="A new directory, or that of the same training, interrupted.")],
    family: Annotated[str, Option(help="llama, gemma, qwen or gpt2. Default: llama.")] = "llama",
    layers: Annotated[int, Option(help="Blocks. Default: 4.")] = 4,
    width: Annotated[int, Option(help="Of the residual stream, a multiple of 32. Default: 64.")] = 64,
    steps: Annotated[int | None, Option(help="Optimiser steps. Default: 1000.")] = None,
    seed: Annotated[int, Option(help="Of the weights and the order of the text. Default: 0.")] = 0,
    world: Annotated[Path | None, Option(help="A world.json to change the world by. Default: jaxtrace's.")] = None,
) -> None:
    """Train a model on CPU in minutes, and write a Hugging Face checkpoint of its family, with its world and a card."""
    from dataclasses import replace

    from jaxtrace.errors import ConfigError
    from jaxtrace.lab.settings import LAB_WORLD
    from jaxtrace.lab.shapes import Shape
    from jaxtrace.lab.tasks import read_settings
    from jaxtrace.lab.train import LAB_RECIPE, run
    from jaxtrace.run import validated

    shape = validated(Shape, {"family": family, "layers": layers, "width": width}, "lab train")
    steps = LAB_RECIPE.steps if steps is None else steps
    if steps < 1 or seed < 0:
        raise ConfigError(f"lab train: {steps} steps from seed {seed}; give 1 or more, and a seed of 0 or more")
    settings = LAB_WORLD if world is None else read_settings(world)
    flags = f"--family {family} --layers {layers} --width {width} --steps {steps} --seed {seed}"
    flags += "" if world is None else " --world world.json"
    recipe = replace(LAB_RECIPE, steps=steps, seed=seed)
    try:
        run(out, shape, settings, recipe, f"jaxtrace lab train {flags} --out DIR", console)
    except KeyboardInterrupt:
        fail(f"interrupted; the last steps saved are kept in {out}; run the same command again to go on", 130)
    console.print(
        f"jaxtrace trace {out} --task lab --data {out}  asks it", markup=False, highlight=False, soft_wrap=True
    )
