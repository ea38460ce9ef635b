"""Texts about a world: short documents that state every fact a known number of times."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from jaxtrace.lab import phrases
from jaxtrace.lab.world import Person, World, draw_facts, full_names

T = TypeVar("T")


def documents(world: World, seed: int) -> Iterator[str]:
    """Yield the training text: short documents in a shuffled order.

    The text states each fact about a person of `world` exactly `Person.stated` times, and never as the answer to the
    phrasing that is held out for that person. It also holds meetings and stories of any two people (which state no
    fact), sums, and documents about strangers. Each stranger appears in one document only, so that an unknown name is
    nothing unusual.

    Args:
      seed: seed of order and phrasing; the facts and their counts do not depend on it.

    Yields:
      text: one document of a few sentences, on one line.
    """
    rng, settings = random.Random(seed), world.settings
    facts = [
        (person, relation)
        for person in world.people
        for relation in person.facts
        for _ in range(person.stated[relation])
    ]
    rng.shuffle(facts)
    plan: list[tuple[str, list[tuple[Person, str]]]] = [("stranger", [])] * settings.strangers
    plan += [("sums", [])] * settings.sums
    plan += [("story", [])] * settings.stories
    while facts:
        size = rng.randint(1, settings.statements_per_document)
        plan.append(("facts", facts[:size]))
        del facts[:size]
    rng.shuffle(plan)
    inhabitants = {person.name for person in world.people}
    unknown = [name for name in full_names(world.first_names, world.last_names) if name not in inhabitants]
    strangers = iter(rng.sample(unknown, settings.strangers))
    for kind, group in plan:
        if kind == "sums":
            yield " ".join(_sum(rng, world) for _ in range(rng.randint(*settings.sums_per_document)))
        elif kind == "stranger":
            yield _stranger(rng, world, next(strangers))
        elif kind == "story":
            yield _story(rng, world)
        else:
            yield _facts_document(rng, world, group)


def _one_of(rng: random.Random, options: Sequence[T]) -> T:
    """Draw an option; a single option uses no randomness, so that a world of one phrasing keeps its text."""
    return options[0] if len(options) == 1 else rng.choice(options)


def _statement(rng: random.Random, world: World, person: Person, relation: str) -> str:
    values = {"name": person.name, "value": person.facts[relation]}
    if rng.random() < 0.5:
        forms = [form for form in range(world.settings.question_forms) if form != person.held_out]
        question = phrases.question_text(person.name, relation, _one_of(rng, forms))
        return f"{question} {phrases.PHRASINGS[relation][0].format(**values)}"
    return rng.choice(phrases.PHRASINGS[relation]).format(**values)


def _facts_document(rng: random.Random, world: World, group: list[tuple[Person, str]]) -> str:
    sentences = [_statement(rng, world, person, relation) for person, relation in group]
    if rng.random() < world.settings.meetings:
        one = group[0][0].name if rng.random() < 0.5 else rng.choice(world.people).name
        two = rng.choice([p.name for p in world.people if p.name != one])
        meeting = rng.choice(phrases.MEETINGS).format(opening=rng.choice(phrases.OPENINGS), one=one, two=two)
        sentences = [meeting, *sentences, rng.choice(phrases.ENDINGS).format(one=one, two=two)]
    if rng.random() < world.settings.passing_sums:
        sentences.append(_sum(rng, world))
    return " ".join(sentences)


def _stranger(rng: random.Random, world: World, name: str) -> str:
    person = Person(name, "stranger", draw_facts(rng, world.places), {}, None)
    relations = rng.sample(list(phrases.PHRASINGS), rng.randint(1, min(3, world.settings.statements_per_document)))
    sentences = [_statement(rng, world, person, relation) for relation in relations]
    if rng.random() < world.settings.repeats:
        sentences.append(_statement(rng, world, person, rng.choice(relations)))
    return " ".join(sentences)


def _story(rng: random.Random, world: World) -> str:
    one, two = (person.name for person in rng.sample(world.people, 2))
    sentences = [
        rng.choice(phrases.MEETINGS),
        *rng.sample(phrases.MIDDLES, rng.randint(1, 3)),
        rng.choice(phrases.ENDINGS),
    ]
    return " ".join(
        sentence.format(
            opening=rng.choice(phrases.OPENINGS),
            one=one,
            two=two,
            thing=rng.choice(phrases.THINGS),
            spot=rng.choice(phrases.SPOTS),
        )
        for sentence in sentences
    )


def _sum(rng: random.Random, world: World) -> str:
    settings = world.settings
    size = _one_of(rng, range(len(settings.addends)))
    withheld = world.asked_sums[size] if settings.withhold_sums else ()
    a, b = _addends(rng, settings.addends[size])
    while (a, b) in withheld:
        a, b = _addends(rng, settings.addends[size])
    form = rng.randrange(3 if a + b < len(phrases.NUMBER_WORDS) else 2)
    if form == 0:
        return f"{a} + {b} = {a + b}."
    if form == 1:
        return f"{phrases.as_question(f'What is {a} + {b}?')} {a} + {b} = {a + b}."
    return f"{phrases.NUMBER_WORDS[a].capitalize()} and {phrases.NUMBER_WORDS[b]} make {phrases.NUMBER_WORDS[a + b]}."


def _addends(rng: random.Random, limits: tuple[int, int]) -> tuple[int, int]:
    return rng.randint(*limits), rng.randint(*limits)
