"""Requests for facts and requests for inventions, two about each of 100 topics; written for this project."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.reading import read_csv, take

CONDITIONS = ("factual", "creative")


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Return the requests: a factual and a creative one per topic, with the same number of words.

    `meta` holds the condition ("factual" or "creative") and the topic.

    Args:
      path: CSV file with columns topic, factual and creative; None for jaxtrace's own 100 topics.
      limit: maximum number of requests; None for all.

    Raises:
      PromptError: the file cannot be read, lacks a column, or has an empty request.
    """
    path = path or Path(str(files("jaxtrace.tasks") / "factual_creative.csv"))
    return take(_prompts(path), limit, path)


def _prompts(path: Path) -> Iterator[Prompt]:
    for index, (line, row) in enumerate(read_csv(path)):
        if missing := [name for name in ("topic", *CONDITIONS) if name not in row]:
            raise PromptError(f"{path}: lacks the column '{missing[0]}'; give the columns topic, factual and creative")
        for condition in CONDITIONS:
            if not row[condition].strip():
                raise PromptError(f"{path}, line {line}: an empty request; write one or delete the row")
            meta = {"condition": condition, "topic": row["topic"]}
            yield Prompt(text=row[condition], id=f"factual-creative-{index:03d}-{condition}", meta=meta)
