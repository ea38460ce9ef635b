"""TinyStories: stories that a model of a few hundred thousand weights can write (Eldan and Li 2023)."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from jaxtrace.errors import PromptError
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.reading import read_lines, take

REPO, FILE = "roneneldan/TinyStories", "TinyStories-valid.txt"
END = "<|endoftext|>"


def load(path: Path | None, limit: int | None, words: int | None = 20) -> list[Prompt]:
    """Return the first words of each story, to continue, or whole stories, to score.

    A file with the marker "<|endoftext|>" is split only at the marker. A file without it is split at blank lines; if
    its stories contain blank lines, each paragraph is a prompt. No piece is excluded: the first and last pieces of a
    cut file are prompts too, though they may begin or end within a story. `meta` holds the file's name and the number
    of words of the piece.

    Args:
      path: text file, or directory whose *.txt files are read in the order of their names; None fetches the validation
        text from the hub (data set "roneneldan/TinyStories").
      limit: maximum number of stories; None for all.
      words: number of words of each story, spaced as in the file; None for whole stories, and a shorter story is whole.

    Raises:
      PromptError: a file cannot be fetched or read, no file has a story, or `words` is below 1.
    """
    if words is not None and words < 1:
        raise PromptError(f"a prompt of {words} words is empty; give at least 1, or None for whole stories")
    path = path or fetch(REPO, FILE, "tinystories")
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    stories = ((file.name, story) for file in files for story in read_stories(file))
    prompts = (
        Prompt(
            text=_first_words(story, words),
            id=f"tinystories-{index:06d}",
            meta={"file": name, "words": len(story.split())},
        )
        for index, (name, story) in enumerate(stories)
    )
    return take(prompts, limit, path)


def _first_words(story: str, words: int | None) -> str:
    if words is None:
        return story
    return story[: [word.end() for word in itertools.islice(re.finditer(r"\S+", story), words)][-1]]


def read_stories(path: Path) -> Iterator[str]:
    """Yield the stories of a file as `load` splits it; raises PromptError."""
    marked = any(END in line for _, line in read_lines(path))
    story: list[str] = []
    for _, line in read_lines(path):
        head, *later = line.split(END) if marked else [line] if line.strip() else ["", ""]
        story.append(head)
        for piece in later:
            if text := "".join(story).strip():
                yield text
            story = [piece]
    if text := "".join(story).strip():
        yield text
