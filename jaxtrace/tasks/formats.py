"""Requests for texts of three formats, by which Entropy-Lens (arXiv 2502.16570) tells formats apart."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from jaxtrace.prompts import Prompt
from jaxtrace.tasks.reading import read_lines, take

# The three requests are those of the study; the topics are this project's own, as many as the study has.
FORMATS = {
    "chat": "Simulate a chat log about {}",
    "poem": "Write a poem about {}",
    "science": "Write a scientific piece about {}",
}
TOPICS = "topics.txt"


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Loads three requests about each topic; `meta` holds the format and the topic.

    Args:
      path: a text file with a topic on each line; None for the 182 that come with jaxtrace. Empty lines are skipped.
      limit: how many prompts at most; None for all.

    Raises:
      PromptError: the file cannot be read, or names no topic.
    """
    path = path or Path(str(files("jaxtrace.tasks") / TOPICS))
    return take(_prompts(path), limit, path)


def _prompts(path: Path) -> Iterator[Prompt]:
    topics = (line.strip() for _, line in read_lines(path) if line.strip())
    for index, topic in enumerate(topics):
        for name, request in FORMATS.items():
            meta = {"format": name, "topic": topic}
            yield Prompt(text=request.format(topic), id=f"formats-{index:03d}-{name}", meta=meta)
