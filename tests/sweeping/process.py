"""Commands in processes that are forked from one that has imported everything slow."""

import jaxtrace.figures.sweep_progress
import jaxtrace.sweeping  # noqa: F401
from jaxtrace import run
from jaxtrace.cli.app import run as run_command
from jaxtrace.lab import train, training  # noqa: F401
from jaxtrace.model import open_model_checkpoint
from jaxtrace.training import tuned_lens

open_model_checkpoint("demo")  # imports the tokenizers


def command(*words: str) -> None:
    """Run a command in small parts."""
    run.PART_SECONDS = 0.0
    training.SAVE_EVERY = tuned_lens.SAVE_EVERY = 1
    run_command(words)
