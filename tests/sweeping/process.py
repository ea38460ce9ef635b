"""A sweep from the command line, in a process that a server forks; everything that takes long to import is here."""

import os
import sys

import jax

import jaxtrace.figures.progress
import jaxtrace.sweeping  # noqa: F401
from jaxtrace import run
from jaxtrace.cli import app
from jaxtrace.model import open_model_checkpoint

open_model_checkpoint("demo")  # imports the tokenizers


def sweep(file: str, root: str, cache: str) -> None:
    """Runs it in small parts, with compiled programs kept in a directory, and ends the process with its status."""
    os.environ["JAXTRACE_CACHE"] = cache
    run.PART_SECONDS = 0.0
    jax.config.update("jax_enable_compilation_cache", True)
    sys.exit(app(["sweep", file, "--out", root], standalone_mode=False))
