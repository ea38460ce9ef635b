"""Task `lab-choices`: stated facts of a lab world, with four choices each."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from jaxtrace.lab.phrases import answer_lead, question_text
from jaxtrace.lab.tasks import load_world
from jaxtrace.lab.world import Person, World
from jaxtrace.prompts import Prompt
from jaxtrace.tasks.reading import take
from jaxtrace.tasks.registry import Task

LETTERS = "ABCD"


def load(path: Path | None, limit: int | None) -> list[Prompt]:
    """Load a question about every stated fact, asked up to its value; the value and three others are the choices.

    The question has the phrasing that the task `lab` uses for the person and that is not held out. The choices of a
    question begin with different letters, so that a model's first token tells them apart. `meta` holds `choices`,
    `answer` (letter of the right choice), `relation` and `stated` (number of times the text states the fact). Arguments
    and errors are as for `lab.tasks.load`.
    """
    return take(_prompts(load_world(path)), limit, path or Path("demo"))


def _prompts(world: World) -> Iterator[Prompt]:
    rng = random.Random(world.settings.seed)
    facts = [(person, relation) for person in world.people for relation in person.facts if person.stated[relation]]
    rng.shuffle(facts)
    for number, (person, relation) in enumerate(facts):
        right = person.facts[relation]
        choices = [right, *_wrong_choices(rng, world, person, relation)]
        rng.shuffle(choices)
        answer = LETTERS[choices.index(right)]
        meta = {"choices": choices, "answer": answer, "relation": relation, "stated": person.stated[relation]}
        question = question_text(person.name, relation, world.known_form(person))
        text = f"{question} {answer_lead(person.name, relation)}"
        yield Prompt(text=text, id=f"lab-choices-{number:04d}", meta=meta)


def _wrong_choices(rng: random.Random, world: World, person: Person, relation: str) -> list[str]:
    """Return three values of the relation whose first letters differ from the right value's and from each other."""
    values = sorted({other.facts[relation] for other in world.people})
    rng.shuffle(values)
    by_letter = {value[0]: value for value in values if value[0] != person.facts[relation][0]}
    return list(by_letter.values())[: len(LETTERS) - 1]


TASK = Task(load, "the stated facts of such a world, with four choices each")
