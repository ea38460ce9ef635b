"""Checkpoint and prompts of the embedded model: `jaxtrace trace demo`."""

import json
from importlib.resources import files
from pathlib import Path

from jaxtrace.prompts import Prompt

FOLDER = Path(str(files("jaxtrace.checkpoints")))


def demo_path() -> Path:
    """Return the directory of the embedded checkpoint, in Hugging Face's layout."""
    return FOLDER / "demo"


def demo_prompts() -> list[Prompt]:
    """Return the default prompts: questions about people of each class of the demo's world.

    A prompt holds the question and the answer up to its value, so the first generated token begins the value.
    `jaxtrace.lab.demo_prompts` wrote the file that this function reads.

    Returns:
      Prompts with ids such as "demo-often-00" and meta `seen` (the class), `stated` (number of times the training text
      states the fact) and, unless the class is "never", `answer`.
    """
    lines = (FOLDER / "demo_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [Prompt(**json.loads(line)) for line in lines]
