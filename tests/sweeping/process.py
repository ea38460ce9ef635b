"""A sweep from the command line, in a process forked from one that has imported everything slow."""

import os
import sys

import jax

import jaxtrace.figures.sweep_progress
import jaxtrace.sweeping  # noqa: F401
from jaxtrace import run
from jaxtrace.cli.app import run as run_command
from jaxtrace.model import open_model_checkpoint

open_model_checkpoint("demo")  # imports the tokenizers


def sweep(file: str, root: str, cache: str) -> None:
    """Run a sweep in small parts with a compile cache, and exit with its status."""
    os.environ["JAXTRACE_CACHE"] = cache
    run.PART_SECONDS = 0.0
    jax.config.update("jax_enable_compilation_cache", True)
    run_command(["sweep", file, "--out", root])
    sys.exit(0)
