"""Task `lab`: questions about the world that a model of `jaxtrace lab train` was taught."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

from jaxtrace.documents import read_model
from jaxtrace.errors import PromptError
from jaxtrace.lab.phrases import OPENINGS, as_question, question_text
from jaxtrace.lab.settings import DEMO_WORLD, WorldSettings
from jaxtrace.lab.world import World
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.reading import take
from jaxtrace.tasks.registry import Task

SETTINGS = "world.json"
STORIES = 60


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Load the questions of a world; see `prompts`.

    Args:
      path: directory of a model that `jaxtrace lab train` wrote, or the `world.json` in it; None for the world of the
        embedded model.
      limit: maximum number of prompts; None for all.

    Raises:
      PromptError: the file is missing, or does not describe a world.
    """
    return take(iter(prompts(load_world(path))), limit, path or Path("demo"))


def load_world(path: Path | None) -> World:
    """Return the world of a directory or `world.json`, or the embedded model's for None; raises PromptError."""
    return World(DEMO_WORLD if path is None else read_settings(path))


def read_settings(path: Path) -> WorldSettings:
    """Return the settings in a directory's `world.json`, or in a file; raises PromptError."""
    file = path / SETTINGS if path.is_dir() else path
    if not file.exists():
        raise PromptError(f"{file}: no such file; name a directory that `jaxtrace lab train` wrote")
    return read_model(
        WorldSettings, file, PromptError, "not the settings of a world", "correct the file or name another"
    )


def prompts(world: World) -> list[Prompt]:
    """Return every fact in a phrasing that the text uses and in the held-out one, sums, and beginnings of stories.

    A question ends before its answer, which the text gives as a sentence: "Answer: Bora Dan lives in Horn.".

    Returns:
      Prompts in an order in which the first few hold all sorts, with ids such as "lab-held-out-0007". `meta` holds
      `kind`. For "fact" and "held-out" it also holds `name`, `relation`, `stated` (number of times the text states the
      fact), `held_out` (True if the text never asks for the fact in these words) and `answer`, which nobody can know
      for facts that are never stated. For "sum" it holds `digits` (of the longer addend) and `answer`. For "story" it
      holds nothing more.
    """
    by_sort: dict[tuple, list[Prompt]] = {}
    for prompt in chain(_facts(world, held_out=False), _facts(world, held_out=True), _sums(world), _stories(world)):
        meta = prompt.meta
        by_sort.setdefault((meta["kind"], meta.get("stated"), meta.get("digits")), []).append(prompt)
    interleaved = chain.from_iterable(zip_longest(*by_sort.values()))
    return [prompt for prompt in interleaved if prompt is not None]


def _facts(world: World, held_out: bool) -> Iterator[Prompt]:
    kind = "held-out" if held_out else "fact"
    facts = [
        (person, relation)
        for person in world.people
        for relation in person.facts
        if not held_out or person.held_out is not None
    ]
    for number, (person, relation) in enumerate(sorted(facts, key=lambda fact: fact[0].stated[fact[1]])):
        form = person.held_out if held_out and person.held_out is not None else world.known_form(person)
        meta = {
            "kind": kind,
            "name": person.name,
            "relation": relation,
            "stated": person.stated[relation],
            "held_out": held_out,
            "answer": person.facts[relation],
        }
        yield Prompt(text=question_text(person.name, relation, form), id=f"lab-{kind}-{number:04d}", meta=meta)


def _sums(world: World) -> Iterator[Prompt]:
    for number, (a, b) in enumerate(chain.from_iterable(world.asked_sums)):
        meta = {"kind": "sum", "digits": len(str(max(a, b))), "answer": str(a + b)}
        yield Prompt(text=as_question(f"What is {a} + {b}?"), id=f"lab-sum-{number:04d}", meta=meta)


def _stories(world: World) -> Iterator[Prompt]:
    for number in range(STORIES):
        opening, person = OPENINGS[number % len(OPENINGS)], world.people[number % len(world.people)]
        yield Prompt(text=f"{opening} {person.name}", id=f"lab-story-{number:04d}", meta={"kind": "story"})


TASK = Task(load, "facts, sums and stories of a world that a model of `lab train`, or demo, was taught")
