"""Requests for texts of three formats, which Entropy-Lens (arXiv 2502.16570) classifies."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from jaxtrace.prompts import Prompt
from jaxtrace.tasks.reading import read_lines, take

# The study published the three requests and the number of topics; the topics themselves are this project's.
FORMATS = {
    "chat": "Simulate a chat log about {}",
    "poem": "Write a poem about {}",
    "science": "Write a scientific piece about {}",
}
TOPICS = "topics.txt"


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Return three requests about each topic; `meta` holds the format and the topic.

    Args:
      path: text file with a topic on each line; None for jaxtrace's own 182 topics. Empty lines are skipped.
      limit: maximum number of prompts; None for all.

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
