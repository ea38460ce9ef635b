"""Checks of names and paths that need no jax, so that a typing error is answered at once."""

from __future__ import annotations

from jaxtrace.settings.run import DEMO, RunConfig
from jaxtrace.settings.validation import check_paths


def check_model(name: str) -> None:
    """Raise CheckpointError if a name can be no model's."""
    from jaxtrace.models.published import check_model_name

    if name != DEMO:
        check_model_name(name)


def check_run(config: RunConfig) -> None:
    """Check the model's name, the task's name and every path of a run.

    Raises:
      JaxtraceError: one of them does not exist.
    """
    check_model(config.model)
    if config.task is not None:
        from jaxtrace.tasks.registry import find_task

        find_task(config.task)
    check_paths(config)


def task_list() -> str:
    """Return the lines of `--help` that describe the tasks."""
    from jaxtrace.tasks.registry import known_tasks

    return "\n".join(["tasks:", *(f"  {name:<20}  {task.text}" for name, task in known_tasks().items())])
