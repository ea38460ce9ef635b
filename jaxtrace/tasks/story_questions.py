"""Requests of three kinds about TinyStories, which Entropy-Lens (arXiv 2502.16570) classifies."""

import itertools
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from jaxtrace.prompts import Prompt
from jaxtrace.tasks.hub import fetch
from jaxtrace.tasks.published import shuffle_again
from jaxtrace.tasks.reading import take
from jaxtrace.tasks.tinystories import FILE, REPO, read_stories

REQUESTS = {
    "generative": ("How can the story be continued?", "Which could be a continuation of the story?"),
    "syntactic": ("How many words are in the story?", "Count the number of words in the story."),
    "semantic": ("What is the main idea of the story?", "Who is the subject of the story?"),
}
LONGEST = 1500  # characters of a prompt; longer prompts are excluded


def load(path: Path | None, limit: int | None, leak: bool = False) -> list[Prompt]:
    """Return 24 prompts about each story: 6 requests, after or before the story, its words in order or shuffled.

    `meta` holds the request's kind, whether it comes first and whether the words are shuffled. A shuffled story has the
    same order in all its prompts, and on every machine. Prompts of more than 1,500 characters are excluded.

    Args:
      path: text file of stories; None fetches the validation text from the hub (data set "roneneldan/TinyStories").
      limit: maximum number of prompts; None for all.
      leak: repeat the published code's mistake: each request shuffles the previous request's words again. From the
        second request on, prompts marked as ordered are not, so that the order gives the kind away.

    Raises:
      PromptError: the file cannot be fetched or read, or it has no story.
    """
    path = path or fetch(REPO, FILE, "story-questions")
    return take(_prompts(path, leak), limit, path)


def _prompts(path: Path, leak: bool) -> Iterator[Prompt]:
    numbers = itertools.count()
    all_requests = [(kind, request) for kind, requests in REQUESTS.items() for request in requests]
    for index, story in enumerate(read_stories(path)):
        shuffle = partial(_shuffle, draw=random.Random(index))
        shuffled = shuffle(story)
        for kind, request in all_requests:
            for first, scrambled in itertools.product((False, True), (False, True)):
                text_of_story = shuffled if scrambled else story
                text = f"{request}\n\n{text_of_story}\n\n" if first else f"{text_of_story}\n\n{request}\n\n"
                if len(text) <= LONGEST:
                    meta = {"story": index, "kind": kind, "request_first": first, "shuffled": scrambled}
                    yield Prompt(text=text, id=f"story-questions-{next(numbers):06d}", meta=meta)
            if leak:
                story, shuffled = shuffle_again(shuffled, shuffle)


def _shuffle(story: str, draw: random.Random) -> str:
    words = story.split()
    draw.shuffle(words)
    return " ".join(words)
