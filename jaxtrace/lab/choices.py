"""Facts of a world whose truth is known, with four choices each."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from jaxtrace.lab.phrases import lead_of, question_of
from jaxtrace.lab.settings import DEMO_WORLD
from jaxtrace.lab.tasks import read_settings
from jaxtrace.lab.world import Person, World
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.reading import take
from jaxtrace.tasks.registry import Task

LETTERS = "ABCD"


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Loads a question about every stated fact, asked up to its value, with the value and three others for choices.

    It is asked as the task `lab` asks it in a phrasing that the text uses for the person.

    The choices of a question begin with different letters, so that a model's first token tells them apart. `meta` holds
    `choices`, `answer` (the right one's letter), `relation` and `stated` (times the text states the fact).

    Args:
      path: directory of a model that `jaxtrace lab train` wrote, or the `world.json` in it; None for the world of the
        model that comes with jaxtrace.
      limit: how many prompts at most; None for all.

    Raises:
      PromptError: there is no such file, or it does not describe a world.
    """
    world = World(DEMO_WORLD if path is None else read_settings(path))
    return take(_prompts(world), limit, path or Path("demo"))


def _prompts(world: World) -> Iterator[Prompt]:
    rng = random.Random(world.settings.seed)
    facts = [(person, relation) for person in world.people for relation in person.facts if person.stated[relation]]
    rng.shuffle(facts)
    for number, (person, relation) in enumerate(facts):
        right = person.facts[relation]
        choices = [right, *_others(rng, world, person, relation)]
        rng.shuffle(choices)
        answer = LETTERS[choices.index(right)]
        meta = {"choices": choices, "answer": answer, "relation": relation, "stated": person.stated[relation]}
        text = f"{question_of(person.name, relation, world.known_form(person))} {lead_of(person.name, relation)}"
        yield Prompt(text=text, id=f"lab-choices-{number:04d}", meta=meta)


def _others(rng: random.Random, world: World, person: Person, relation: str) -> list[str]:
    """Three values of the relation that begin with other letters than the right one and each other."""
    values = sorted({other.facts[relation] for other in world.people})
    rng.shuffle(values)
    by_letter = {value[0]: value for value in values if value[0] != person.facts[relation][0]}
    return list(by_letter.values())[: len(LETTERS) - 1]


TASK = Task(load, "the stated facts of such a world, with four choices each")
