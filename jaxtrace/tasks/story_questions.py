"""Requests of three kinds about TinyStories, by which Entropy-Lens (arXiv 2502.16570) tells kinds of tasks apart."""

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from jaxtrace.prompts import Prompt
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.reading import take
from jaxtrace.tasks.tinystories import FILE, REPO, read_stories

REQUESTS = {
    "generative": ("How can the story be continued?", "Which could be a continuation of the story?"),
    "syntactic": ("How many words are in the story?", "Count the number of words in the story."),
    "semantic": ("What is the main idea of the story?", "Who is the subject of the story?"),
}
LONGEST = 1500  # characters of a prompt; longer ones are left out


def load(path: Path | None, limit: int | None, leak: bool = False) -> list[Prompt]:
    """Loads 24 prompts about each story: 6 requests, after or before the story, its words in order or shuffled.

    `meta` holds the request's kind, whether it comes first and whether the words are shuffled. A shuffled story has the
    same order in all its prompts, and on every machine. Prompts of more than 1,500 characters are left out.

    Args:
      path: a text file of stories; None fetches the validation text from the hub (the data set
        "roneneldan/TinyStories").
      limit: how many prompts at most; None for all.
      leak: as the published code has it, each request shuffles the words that the one before it left: from the second
        request on, prompts that are said to be in order are not, and the kinds differ in how many are.

    Raises:
      PromptError: the file cannot be fetched or read, or there is no story.
    """
    path = path or fetch(REPO, FILE, "story-questions")
    return take(_prompts(path, leak), limit, path)


def _prompts(path: Path, leak: bool) -> Iterator[Prompt]:
    numbers = itertools.count()
    asked = [(kind, request) for kind, requests in REQUESTS.items() for request in requests]
    for index, story in enumerate(read_stories(path)):
        draw = random.Random(index)
        shuffled = _shuffled(story, draw)
        for kind, request in asked:
            for first, scrambled in itertools.product((False, True), (False, True)):
                told = shuffled if scrambled else story
                text = f"{request}\n\n{told}\n\n" if first else f"{told}\n\n{request}\n\n"
                if len(text) <= LONGEST:
                    meta = {"story": index, "kind": kind, "request_first": first, "shuffled": scrambled}
                    yield Prompt(text=text, id=f"story-questions-{next(numbers):06d}", meta=meta)
            if leak:
                story, shuffled = shuffled, _shuffled(shuffled, draw)


def _shuffled(story: str, draw: random.Random) -> str:
    words = story.split()
    draw.shuffle(words)
    return " ".join(words)
