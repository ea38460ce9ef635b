"""A sweep from the command line, in a process forked from one that has imported everything slow."""

import jaxtrace.figures.sweep_progress
import jaxtrace.sweeping  # noqa: F401
from jaxtrace import run
from jaxtrace.cli.app import run as run_command
from jaxtrace.model import open_model_checkpoint

open_model_checkpoint("demo")  # imports the tokenizers


def sweep(file: str, root: str) -> None:
    """Run a sweep in small parts."""
    run.PART_SECONDS = 0.0
    run_command(["sweep", file, "--out", root])
