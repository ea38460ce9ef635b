"""A command of jaxtrace in a process that is forked from one which has imported everything slow."""

import multiprocessing
import os
from pathlib import Path

import jaxtrace.figures.sweep_progress
import jaxtrace.sweeping  # noqa: F401
from jaxtrace import figures, run
from jaxtrace.cli.app import run as run_command
from jaxtrace.lab import training as lab_training
from jaxtrace.model import open_model_checkpoint
from jaxtrace.training import tuned_lens

open_model_checkpoint("demo")  # imports the tokenizers


def start(*words, folder):
    """Start `jaxtrace WORDS` in a folder, with small parts, frequent saves and no plots; return the process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_command, args=([str(word) for word in words], str(folder)))
    process.start()
    return process


def _command(words, folder):
    os.chdir(folder)
    run.PART_SECONDS = 0.0
    lab_training.SAVE_EVERY = tuned_lens.SAVE_EVERY = 2
    figures.write_plots = lambda *_: []
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 1)
    run_command(words)
