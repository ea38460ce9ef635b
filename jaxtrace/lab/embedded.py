"""The model that ships inside the package: `jaxtrace trace demo`."""

from importlib.resources import files
from pathlib import Path

from jaxtrace.lab.world import World, prompts
from jaxtrace.tasks.prompt import Prompt

SEED = 0


def demo_path() -> Path:
    """The folder of the embedded checkpoint, in Hugging Face's layout."""
    return Path(str(files("jaxtrace.lab") / "demo"))


def demo_prompts() -> list[Prompt]:
    """Questions about facts that its training text stated often, rarely and never; see `world.prompts`."""
    return prompts(World(SEED))
