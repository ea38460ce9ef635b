"""Questions about a world whose truth is known: the one that a model of `jaxtrace lab train` was taught."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

from pydantic import ValidationError

from jaxtrace.errors import PromptError
from jaxtrace.lab.phrases import OPENINGS, ask, question_of
from jaxtrace.lab.settings import DEMO_WORLD, WorldSettings
from jaxtrace.lab.world import World
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.reading import take
from jaxtrace.tasks.registry import Task

SETTINGS = "world.json"
STORIES = 60


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Loads the questions of a world; see `prompts`.

    Args:
      path: directory of a model that `jaxtrace lab train` wrote, or the `world.json` in it; None for the world of the
        model that comes with jaxtrace.
      limit: how many prompts at most; None for all.

    Raises:
      PromptError: there is no such file, or it does not describe a world.
    """
    world = World(DEMO_WORLD if path is None else read_settings(path))
    return take(iter(prompts(world)), limit, path or Path("demo"))


def read_settings(path: Path) -> WorldSettings:
    """The settings in a directory's `world.json`, or in a file; raises PromptError."""
    file = path / SETTINGS if path.is_dir() else path
    try:
        return WorldSettings.model_validate_json(file.read_bytes())
    except OSError:
        raise PromptError(f"{file}: no such file; name a directory that `jaxtrace lab train` wrote") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PromptError(f"{file}: not the settings of a world ({where}{': ' * bool(where)}{first['msg']})") from None


def prompts(world: World) -> list[Prompt]:
    """Every fact asked in a phrasing that the text used and in the one held out, sums, and beginnings of stories.

    A question ends before its answer, which the text gives as a sentence: "Answer: Bora Dan lives in Horn.".

    Returns:
      Prompts in an order in which every first few hold all sorts, with ids such as "lab-held-out-0007" and meta `kind`:
      for "fact" and "held-out" `name`, `relation`, `stated` (times the text states the fact), `held_out` (whether the
      text never asks for it in these words) and `answer`, which for facts never stated nobody can know; for "sum"
      `digits` (of the longer addend) and `answer`; for "story" nothing more.
    """
    sorts: dict[tuple, list[Prompt]] = {}
    for prompt in chain(_facts(world, held_out=False), _facts(world, held_out=True), _sums(world), _stories(world)):
        meta = prompt.meta
        sorts.setdefault((meta["kind"], meta.get("stated"), meta.get("digits")), []).append(prompt)
    ordered = chain.from_iterable(zip_longest(*(sorts[sort] for sort in sorts)))
    return [prompt for prompt in ordered if prompt is not None]


def _facts(world: World, held_out: bool) -> Iterator[Prompt]:
    kind = "held-out" if held_out else "fact"
    asked = [
        (person, relation)
        for person in world.people
        for relation in person.facts
        if not held_out or person.held_out is not None
    ]
    for number, (person, relation) in enumerate(sorted(asked, key=lambda fact: fact[0].stated[fact[1]])):
        form = person.held_out if held_out and person.held_out is not None else world.known_form(person)
        meta = {
            "kind": kind,
            "name": person.name,
            "relation": relation,
            "stated": person.stated[relation],
            "held_out": held_out,
            "answer": person.facts[relation],
        }
        yield Prompt(text=question_of(person.name, relation, form), id=f"lab-{kind}-{number:04d}", meta=meta)


def _sums(world: World) -> Iterator[Prompt]:
    pairs = [pair for asked in world.asked_sums for pair in asked]
    for number, (a, b) in enumerate(pairs):
        meta = {"kind": "sum", "digits": len(str(max(a, b))), "answer": str(a + b)}
        yield Prompt(text=ask(f"What is {a} + {b}?"), id=f"lab-sum-{number:04d}", meta=meta)


def _stories(world: World) -> Iterator[Prompt]:
    for number in range(STORIES):
        opening, person = OPENINGS[number % len(OPENINGS)], world.people[number % len(world.people)]
        yield Prompt(text=f"{opening} {person.name}", id=f"lab-story-{number:04d}", meta={"kind": "story"})


TASK = Task(load, "facts, sums and stories of a world that a model of `lab train`, or demo, was taught")
