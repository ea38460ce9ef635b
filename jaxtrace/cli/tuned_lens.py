"""`jaxtrace tuned-lens`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from jaxtrace.cli.checks import check_run, task_list
from jaxtrace.cli.options import Arguments, command
from jaxtrace.cli.output import console
from jaxtrace.cli.signals import on_interrupt
from jaxtrace.settings.groups import OUTPUT
from jaxtrace.settings.prompt import PromptSettings
from jaxtrace.settings.run import CHOICE_FIELDS, RunConfig, run_config
from jaxtrace.settings.validation import StrictModel
from jaxtrace.training.settings import LensRecipe


class TunedLensOptions(StrictModel):
    """Options of `jaxtrace tuned-lens` besides the training's settings."""

    out: Path = Field(
        Path("lens"),
        description="Directory of the lens; an interrupted training in it is resumed.",
        json_schema_extra=OUTPUT,
    )


@command(
    "tuned-lens",
    (RunConfig, ("model", "revision", "ignore_config", "mesh", "task", "data", "prompts", *CHOICE_FIELDS, "bos")),
    LensRecipe,
    TunedLensOptions,
    example="jaxtrace tuned-lens demo --task lab --steps 250 --out lens",
    notes=task_list,
)
def tuned_lens(arguments: Arguments) -> None:
    """Train a tuned lens: a translator from each layer's residual stream to the last layer's prediction."""
    recipe = arguments.settings(LensRecipe)
    run = run_config(**arguments.fields(RunConfig), seed=recipe.seed)
    out = arguments.settings(TunedLensOptions).out
    check_run(run)
    on_interrupt(lambda: f"saved steps are kept in {out}; run the same command again to resume")
    from jaxtrace.cli.progress import counter
    from jaxtrace.figures.tables.lens import lens_table
    from jaxtrace.model import Model
    from jaxtrace.run import load_prompts, open_config_model
    from jaxtrace.training.tuned_lens import tune

    model = Model.from_checkpoint(open_config_model(run), mesh=run.mesh)
    ids = [tokens for _, tokens in model.encode(load_prompts(run), PromptSettings(bos=run.bos), chat=False)]
    text = " ".join(filter(None, (run.task or str(run.prompts or "prompts"), run.data and str(run.data))))
    with counter("training", "steps") as show:
        card, kl = tune(
            model, ids, text, recipe, out, lambda done, loss: show(done, recipe.steps, f"KL {loss:.4f} nats")
        )
    on_interrupt(lambda: f"{out} is complete")
    console.print(lens_table(card, kl))
    console.print(f"{out}: lens.safetensors, lens.json")
    console.print(f"jaxtrace trace {run.model} --lens {out} …  traces with it")
