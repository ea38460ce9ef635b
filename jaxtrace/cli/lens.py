"""`jaxtrace tuned-lens`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxtrace.cli.app import Option, app, console, fail, verb
from jaxtrace.cli.progress import counter


@app.command()
@verb
def tuned_lens(
    model: Annotated[str, typer.Argument(help="Checkpoint directory, hub id, name that `models` lists, or 'demo'.")],
    task: Annotated[str | None, Option(help="The task whose texts it is trained on.")] = None,
    data: Annotated[Path | None, Option(help="The task's data file; the hub's copy without it.")] = None,
    prompts: Annotated[Path | None, Option(help="A file of texts: .txt, .jsonl, .csv.")] = None,
    limit: Annotated[int | None, Option(help="Use this many texts at most.")] = None,
    steps: Annotated[int | None, Option(help="Of the optimiser. Default: 250.")] = None,
    batch: Annotated[int | None, Option(help="Sequences of a step. Default: 8.")] = None,
    length: Annotated[int | None, Option(help="Tokens of a sequence. Default: 128.")] = None,
    learning_rate: Annotated[float | None, Option(help="At first; it falls to 0. Default: 0.001.")] = None,
    seed: Annotated[int | None, Option(help="Of the order of sequences. Default: 0.")] = None,
    mesh: Annotated[str | None, Option(help="Devices: data=1,model=8. Default: auto.")] = None,
    out: Annotated[Path, Option(help="Directory of the lens. A training that was stopped goes on.")] = Path("lens"),
) -> None:
    """Train a tuned lens: a translator of each layer's residual stream to what the last layer says."""
    arguments = locals()
    from jaxtrace.figures.lens import lens_table
    from jaxtrace.model import Model
    from jaxtrace.run import open_config_model, run_config
    from jaxtrace.training.tuned_lens import Recipe, tune

    of_run = {name: arguments[name] for name in ("model", "task", "data", "prompts", "limit", "mesh")}
    of_recipe = {name: arguments[name] for name in ("steps", "batch", "length", "learning_rate", "seed")}
    run = run_config(**{name: value for name, value in of_run.items() if value is not None})
    recipe = Recipe(**{name: value for name, value in of_recipe.items() if value is not None})
    loaded = Model.of(open_config_model(run), mesh=run.mesh)
    ids = [tokens for _, tokens in loaded.encode(run.load_prompts(), chat=False)]
    text = " ".join(filter(None, (run.task or str(run.prompts or "prompts"), run.data and str(run.data))))
    try:
        with counter("training", "steps") as bar:
            card, kl = tune(
                loaded, ids, text, recipe, out, lambda done, loss: bar(done, recipe.steps, f"KL {loss:.4f} nats")
            )
    except KeyboardInterrupt:
        fail(f"interrupted; what is trained is kept in {out}; run it again to go on", 130)
    console.print(lens_table(card, kl))
    console.print(f"{out}: lens.safetensors, lens.json", markup=False, highlight=False)
    console.print(f"jaxtrace trace {model} --lens {out} …  traces by it", markup=False, highlight=False)
