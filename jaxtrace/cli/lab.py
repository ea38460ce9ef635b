"""`jaxtrace lab`: small models of a world whose truth is known."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from jaxtrace.cli.options import Arguments, command
from jaxtrace.cli.output import console, fail, say
from jaxtrace.lab.settings import LAB_RECIPE, LAB_WORLD, DecoderRecipe
from jaxtrace.lab.shapes import Shape
from jaxtrace.settings.groups import OUTPUT
from jaxtrace.settings.numbers import Count, Seed
from jaxtrace.settings.validation import StrictModel, validated


class LabOptions(StrictModel):
    """Options of `jaxtrace lab train` besides the model's shape."""

    family: str = Field("llama", description="llama, gemma, qwen or gpt2.")
    steps: Count = Field(LAB_RECIPE.steps, description="Number of optimiser steps.")
    seed: Seed = Field(LAB_RECIPE.seed, description="Seed of the weights and of the order of the text.")
    world: Path | None = Field(
        None,
        description="File world.json that changes the world. Default: jaxtrace's world.",
        json_schema_extra={"exists": "name a world.json, or a directory that holds one"},
    )
    out: Path = Field(
        description="New directory, or the directory of the same training, interrupted.", json_schema_extra=OUTPUT
    )


@command(
    "lab train",
    (Shape, ("layers", "width")),
    LabOptions,
    example="jaxtrace lab train --family gemma --layers 2 --width 32 --steps 200 --out lab-gemma",
)
def train(arguments: Arguments) -> None:
    """Train a small model on CPU in minutes; write a Hugging Face checkpoint with its world and a card."""
    options = arguments.settings(LabOptions)
    shape = validated(Shape, arguments.fields(Shape) | {"family": options.family}, "lab train")
    changes = {"steps": options.steps, "seed": options.seed}
    recipe = validated(DecoderRecipe, LAB_RECIPE.model_dump() | changes, "lab train")
    from jaxtrace.lab.tasks import read_settings
    from jaxtrace.lab.train import run

    world = LAB_WORLD if options.world is None else read_settings(options.world)
    flags = f"--family {shape.family} --layers {shape.layers} --width {shape.width}"
    flags += f" --steps {recipe.steps} --seed {recipe.seed}"
    flags += "" if options.world is None else " --world world.json"
    try:
        run(options.out, shape, world, recipe, f"jaxtrace lab train {flags} --out DIR", console)
    except KeyboardInterrupt:
        fail(f"interrupted; saved steps are kept in {options.out}; run the same command again to resume", 130)
    say(f"jaxtrace trace {options.out} --task lab --data {options.out}  asks it")
