"""`jaxtrace plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from jaxtrace.cli.app import Option, app, console, errors, verb


@app.command()
@verb
def plan(
    model: Annotated[str, Option(help="Name that `models` lists, directory with a config.json, or 'demo'.")] = "demo",
    topology: Annotated[
        str, Option(help="Kind and number of chips: v4-, v5e-, v5p-, v6e-, 7x-, or CPU devices: cpu-8. Default: v5e-1.")
    ] = "v5e-1",
    batch: Annotated[int, Option(help="Rows that run together. Default: 8.")] = 8,
    context: Annotated[
        int | None, Option(help="Positions of a row, prompt and new tokens. Default: 4096, or the model's own.")
    ] = None,
    probes: Annotated[str, Option(help="Groups, comma-separated, all or none. Default: all.")] = "all",
    dtype: Annotated[
        str | None, Option(help="float32, bfloat16 or float16. Default: bfloat16, on CPUs float32.")
    ] = None,
    mesh: Annotated[str | None, Option(help="Sizes that make up its devices: data=2,model=8. Default: chosen.")] = None,
    search: Annotated[
        bool, Option("--search", help="Find what fits, if this does not: more chips, fewer rows.")
    ] = False,
    json: Annotated[bool, Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Say whether a run fits a slice of TPUs and what bounds its speed, with no TPU there.

    Compiles the real steps for it; reads no weights. Exits 0 if it fits, and 1 if it does not.
    """
    import jax

    from jaxtrace.figures.plan import found_line, plan_table
    from jaxtrace.planning.plan import Plan, Request
    from jaxtrace.planning.plan import plan as make
    from jaxtrace.planning.search import largest_batch, smallest_topology
    from jaxtrace.settings.probes import Probes

    jax.config.update("jax_platforms", "cpu")  # nothing is run: an accelerator that is here stays free
    groups = Probes.of(*(group.strip() for group in probes.split(",")))
    others: list[Plan] = []
    with errors.status(f"compiling for {topology}") as status:

        def on_try(request: Request) -> None:
            status.update(f"compiling {request.batch} rows for {request.topology.name}")

        found = make(model, topology, batch=batch, context=context, probes=groups, dtype=dtype, mesh=mesh)
        if search and not found.fits:
            others = [other for other in (smallest_topology(found, on_try), largest_batch(found, on_try)) if other]
    if json:
        console.print_json(data=found.as_dict() | {"fitting": [other.as_dict() for other in others]})
    else:
        console.print(plan_table(found))
        for other in others:
            console.print(found_line(other))
        if search and not found.fits and not others:
            console.print("no larger slice that is listed fits it, and no smaller batch fits this one", style="red")
    if not found.fits:
        raise typer.Exit(1)
