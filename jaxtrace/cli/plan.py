"""`jaxtrace plan`."""

from __future__ import annotations

from pydantic import Field

from jaxtrace.cli.checks import check_run
from jaxtrace.cli.options import Arguments, command
from jaxtrace.cli.output import console, errors
from jaxtrace.errors import visible
from jaxtrace.settings.groups import DEVICES, MODEL, OUTPUT
from jaxtrace.settings.numbers import Count, Rows
from jaxtrace.settings.probes import LENS_OPTIONS
from jaxtrace.settings.run import DEMO, RunConfig, run_config
from jaxtrace.settings.validation import StrictModel


class PlanOptions(StrictModel):
    """Options of `jaxtrace plan`."""

    model: str = Field(
        DEMO,
        description="Name that `jaxtrace models` lists, directory with a config.json, GGUF file, or 'demo'.",
        json_schema_extra=MODEL,
    )
    dtype: str | None = Field(
        None,
        description="Parameters and caches: float32, bfloat16 or float16. Default: bfloat16, float32 on CPUs.",
        json_schema_extra=MODEL,
    )
    topology: str = Field(
        "v5e-1",
        description="Kind and number of chips: v4-, v5e-, v5p-, v6e-, 7x-, or CPU devices: cpu-8.",
        json_schema_extra=DEVICES,
    )
    mesh: str | None = Field(
        None, description="Sizes of the mesh's axes: data=2,model=8. Default: chosen.", json_schema_extra=DEVICES
    )
    batch: Rows = Field(8, description="Number of rows that run together.")
    context: Count | None = Field(
        None, description="Positions of a row, prompt and new tokens. Default: 4096, or the model's context if shorter."
    )
    search: bool = Field(
        False,
        description="If the run does not fit, find what does: more chips, or fewer rows.",
        json_schema_extra=OUTPUT,
    )
    as_json: bool = Field(
        False, description="Print the figures as JSON.", json_schema_extra=OUTPUT | {"option": "--json"}
    )


@command(
    "plan",
    PlanOptions,
    (RunConfig, ("probes", "layer_stride", *LENS_OPTIONS, "matmul_precision")),
    example="jaxtrace plan --model llama-3.2-1b --topology v5e-4 --batch 16 --context 2048",
)
def plan(arguments: Arguments) -> None:
    """Check whether a run fits a TPU slice, and what limits its speed (no TPU needed).

    The real steps are compiled for the slice; no weights are read. The exit status is 0 if the run fits, and 1 if not.
    """
    options, run = arguments.settings(PlanOptions), run_config(**arguments.fields(RunConfig), random=True)
    check_run(run.model_copy(update={"model": options.model}))
    import jax
    from rich.text import Text

    from jaxtrace.figures.tables.plan import fitting_line, plan_table
    from jaxtrace.kernels import at_precision
    from jaxtrace.planning.plan import Plan, Request
    from jaxtrace.planning.plan import plan as make_plan
    from jaxtrace.planning.search import largest_batch, smallest_topology

    jax.config.update("jax_platforms", "cpu")  # nothing runs: an accelerator of this machine stays free
    fitting: list[Plan] = []
    compiling = errors.status(Text(f"compiling for {visible(options.topology)}"))
    with compiling as status, at_precision(run.matmul_precision):

        def on_try(request: Request) -> None:
            status.update(f"compiling {request.batch} rows for {request.topology.name}")

        result = make_plan(
            options.model,
            options.topology,
            batch=options.batch,
            context=options.context,
            probes=run.recorded,
            dtype=options.dtype,
            mesh=options.mesh,
        )
        if options.search and not result.fits:
            fitting = [other for other in (smallest_topology(result, on_try), largest_batch(result, on_try)) if other]
    if options.as_json:
        console.print_json(
            data=result.as_dict() | {"fitting": [other.as_dict() for other in fitting]}, ensure_ascii=True
        )
    else:
        console.print(plan_table(result))
        for other in fitting:
            console.print(fitting_line(other))
        if options.search and not result.fits and not fitting:
            console.print("no larger slice that is listed fits it, and no smaller batch fits this one", style="red")
    if not result.fits:
        raise SystemExit(1)
